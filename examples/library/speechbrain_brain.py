"""GM-OT in a SpeechBrain recipe: what changes in your `Brain`, and a stand-in that runs it without SpeechBrain.

    python3 examples/library/speechbrain_brain.py

Paste what is marked NEW into your train.py. In hparams.yaml, `gmot` becomes one of the `modules` (so that it is moved
to the device and wrapped for several GPUs) and one of what `model` holds (so that it is optimised and saved):

    gmot_config: !apply:espnet_gmot.config.GMOTConfig.from_dict [{preset: gmot, teacher_width: 768}]
    gmot: !new:espnet_gmot.loss.GMOTLoss
        config: !ref <gmot_config>
        width: !ref <dnn_neurons>      # columns of what your encoder gives

The transcripts must reach the batch: `wrd` is among the output keys of SpeechBrain's own recipes. Its `ctc_loss` is
by default the mean over *tokens*, the transfer one over utterances: with `reduction: batchmean` the two weigh as in
ESPnet, else divide `w_ot` and `w_align` by the usual number of tokens of an utterance.
"""

from enum import Enum
from types import SimpleNamespace

import torch
from small_ctc import Encoder, batch, ctc_loss, spectra, teacher, tones
from torch import Tensor

from espnet_gmot.config import GMOTConfig
from espnet_gmot.loss import GMOTLoss


class Stage(Enum):
    """As speechbrain.Stage."""

    TRAIN = 1
    VALID = 2


class Brain:
    """Stands in for speechbrain.Brain: one step at a time. Leave it out, and derive from `sb.Brain`."""

    def __init__(self, modules: dict[str, torch.nn.Module], hparams: dict[str, object]) -> None:
        self.modules = torch.nn.ModuleDict(modules)
        self.hparams = SimpleNamespace(**hparams)
        self.optimizer = torch.optim.Adam(self.modules.parameters(), lr=0.01)

    def fit_batch(self, data: SimpleNamespace) -> Tensor:
        """One training step; its loss."""
        loss = self.compute_objectives(self.compute_forward(data, Stage.TRAIN), data, Stage.TRAIN)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def evaluate_batch(self, data: SimpleNamespace, stage: Stage) -> Tensor:
        """The loss of a batch, nothing learnt."""
        with torch.no_grad():
            return self.compute_objectives(self.compute_forward(data, stage), data, stage)


class ASR(Brain):
    """A CTC recogniser in SpeechBrain's two methods."""

    def compute_forward(self, batch: SimpleNamespace, stage: Stage) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities (B, T, V), relative lengths (B,), and NEW: the encoder's frames (B, T, D)."""
        wavs, wav_lens = batch.sig
        feats = self.hparams.compute_features(wavs)
        x = self.modules["enc"](feats)
        p_ctc = self.modules["ctc_lin"](x).log_softmax(2)
        return p_ctc, wav_lens, x  # NEW: x

    def compute_objectives(
        self, predictions: tuple[Tensor, Tensor, Tensor], batch: SimpleNamespace, stage: Stage
    ) -> Tensor:
        """The CTC loss and, in training, the transfer."""
        p_ctc, wav_lens, x = predictions  # NEW: x
        tokens, tokens_lens = batch.tokens
        loss = self.hparams.ctc_cost(p_ctc, tokens, wav_lens, tokens_lens)
        if stage == Stage.TRAIN:  # NEW, to the end of the block
            frames = (wav_lens * x.shape[1]).round().long()  # SpeechBrain's lengths are shares of the longest
            features, rows = self.hparams.teacher(batch.wrd)
            transfer, self.gmot_stats = self.modules["gmot"](x, frames, features.to(x.device), rows.to(x.device))
            loss = loss + transfer
        return loss


def speechbrain_batch(texts: list[str]) -> SimpleNamespace:
    """A batch as SpeechBrain hands it out: padded data beside relative lengths, and the transcripts."""
    data = batch(texts)
    shares = [lengths / lengths.max() for lengths in (data.wave_lengths, data.token_lengths)]
    return SimpleNamespace(sig=(data.waves, shares[0]), tokens=(data.tokens, shares[1]), wrd=data.texts)


def ctc_cost(log_probs: Tensor, tokens: Tensor, wav_lens: Tensor, tokens_lens: Tensor) -> Tensor:
    """As speechbrain.nnet.losses.ctc_loss: relative lengths in, the mean over tokens and batch out."""
    frames, rows = ((s * n).round().long() for s, n in ((wav_lens, log_probs.shape[1]), (tokens_lens, tokens.shape[1])))
    return ctc_loss(log_probs, frames, tokens, rows, "mean")


def main(steps: int = 40) -> list[float]:
    """Train on 64 sentences; the loss of every step, and the validation loss last."""
    torch.manual_seed(0)
    texts = tones.sentences(80)
    encoder = Encoder()
    config = GMOTConfig.from_dict({"preset": "gmot", "teacher_width": tones.WIDTH})
    modules = {
        "enc": encoder,
        "ctc_lin": torch.nn.Linear(encoder.width, len(tones.TOKENS)),
        "gmot": GMOTLoss(config, encoder.width),  # NEW
    }
    hparams = {"compute_features": spectra, "ctc_cost": ctc_cost, "teacher": teacher}  # NEW: teacher
    brain = ASR(modules, hparams)
    losses = []
    for step in range(steps):
        losses.append(float(brain.fit_batch(speechbrain_batch(texts[step % 4 * 16 : step % 4 * 16 + 16]))))
        print(f"loss {losses[-1]:.3f}, {', '.join(f'{name} {value:.3f}' for name, value in brain.gmot_stats.items())}")
    losses.append(float(brain.evaluate_batch(speechbrain_batch(texts[64:]), Stage.VALID)))
    print(f"validation: {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
