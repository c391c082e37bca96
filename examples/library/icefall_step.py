"""GM-OT in an icefall recipe: what changes in `AsrModel` and `compute_loss`, run here without k2, lhotse and icefall.

    python3 examples/library/icefall_step.py

Paste what is marked NEW. Two things are particular to icefall: its losses are sums over the utterances of a batch, so
the transfer, a mean, is multiplied by their number; and the loss is computed inside `AsrModel.forward`, which DDP
wraps. A Zipformer's `encoder_dim` is the width that GMOTLoss wants.
"""

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from small_ctc import SHIFT, Encoder, batch, ctc_loss, spectra, teacher, tones
from torch import Tensor

from espnet_gmot.config import GMOTConfig
from espnet_gmot.loss import GMOTLoss


class AsrModel(torch.nn.Module):
    """A CTC model with the methods of zipformer/model.py.

    Args:
        encoder: (N, T, bins) → (N, T, encoder_dim).
        encoder_dim: its width.
        vocab_size: tokens, blank included.
        gmot: NEW, the transfer loss.
    """

    def __init__(self, encoder: torch.nn.Module, encoder_dim: int, vocab_size: int, gmot: GMOTLoss) -> None:
        super().__init__()
        self.encoder = encoder
        self.ctc_output = torch.nn.Sequential(torch.nn.Linear(encoder_dim, vocab_size), torch.nn.LogSoftmax(dim=-1))
        self.gmot = gmot  # NEW

    def forward_encoder(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded frames (N, T, encoder_dim) and their lengths (N,)."""
        return self.encoder(x), x_lens

    def forward_ctc(self, encoder_out: Tensor, encoder_out_lens: Tensor, y: Tensor, y_lens: Tensor) -> Tensor:
        """CTC's loss, summed over the batch."""
        return ctc_loss(self.ctc_output(encoder_out), encoder_out_lens, y, y_lens, "sum")

    def forward(
        self, x: Tensor, x_lens: Tensor, y: Tensor, y_lens: Tensor, teacher_out: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """CTC's loss and NEW: the transfer (both sums over the batch) with its statistics, means."""
        encoder_out, encoder_out_lens = self.forward_encoder(x, x_lens)
        ctc = self.forward_ctc(encoder_out, encoder_out_lens, y, y_lens)
        if teacher_out is None:
            return ctc, torch.zeros_like(ctc), {}
        transfer, stats = self.gmot(encoder_out, encoder_out_lens, *teacher_out)  # NEW
        return ctc, transfer * len(x), stats  # NEW: icefall's losses are sums


def compute_loss(
    params: SimpleNamespace,
    model: AsrModel,
    plm: Callable[[list[str]], tuple[Tensor, Tensor]],
    batch: dict[str, Any],
    is_training: bool,
) -> tuple[Tensor, Counter]:
    """The loss of a batch as lhotse gives it, and sums for the log (icefall's MetricsTracker).

    Args:
        params: `ctc_loss_scale` and NEW: `gmot_loss_scale`.
        model: the recogniser.
        plm: NEW, the teacher: texts → features (N, U, D), lengths (N,).
        batch: inputs (N, T, C), supervisions.
        is_training: whether gradients are wanted.
    """
    feature = batch["inputs"]
    supervisions = batch["supervisions"]
    tokens, token_lens = supervisions["tokens"]
    with torch.set_grad_enabled(is_training):
        teacher_out = plm(supervisions["text"]) if is_training else None  # NEW; .to(device) on a GPU
        ctc, transfer, stats = model(feature, supervisions["num_frames"], tokens, token_lens, teacher_out)
        loss = params.ctc_loss_scale * ctc + params.gmot_loss_scale * transfer  # NEW: the second term
    info = Counter(frames=supervisions["num_frames"].sum().item(), loss=loss.item(), ctc_loss=ctc.item())
    info["gmot_loss"] = transfer.item()  # NEW, and where there are any, its parts
    for name in ("loss_wd", "loss_gwd", "loss_align"):
        info[name] = stats.get(name, transfer).item() * len(feature)
    return loss, info


def lhotse_batch(texts: list[str]) -> dict[str, Any]:
    """A batch in lhotse's form, with tokens instead of what `sp.encode` makes of the texts."""
    data = batch(texts)
    supervisions = {
        "text": data.texts,
        "num_frames": data.wave_lengths // SHIFT,
        "tokens": (data.tokens, data.token_lengths),
    }
    return {"inputs": spectra(data.waves), "supervisions": supervisions}


def main(steps: int = 40) -> list[Counter]:
    """Train on 64 sentences; what every step logs, and the validation last."""
    torch.manual_seed(0)
    texts = tones.sentences(80)
    params = SimpleNamespace(ctc_loss_scale=1.0, gmot_loss_scale=1.0)
    encoder = Encoder()
    gmot = GMOTLoss(GMOTConfig.from_dict({"teacher_width": tones.WIDTH}), encoder.width)
    model = AsrModel(encoder, encoder.width, len(tones.TOKENS), gmot)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    logged = []
    for step in range(steps):
        loss, info = compute_loss(params, model, teacher, lhotse_batch(texts[step % 4 * 16 : step % 4 * 16 + 16]), True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        logged.append(info)
        print(", ".join(f"{name} {info[name] / info['frames']:.4f}" for name in ("loss", "ctc_loss", "gmot_loss")))
    model.eval()
    logged.append(compute_loss(params, model, teacher, lhotse_batch(texts[64:]), False)[1])
    print(f"validation: ctc_loss {logged[-1]['ctc_loss'] / logged[-1]['frames']:.4f}")
    return logged


if __name__ == "__main__":
    main()
