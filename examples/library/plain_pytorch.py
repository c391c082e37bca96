"""GM-OT in a training loop of plain PyTorch, without ESPnet: three lines are new.

    python3 examples/library/plain_pytorch.py

Needs torch and numpy, nothing else. Every step prints CTC's loss and the two distances of the transfer.
"""

import torch
from small_ctc import SHIFT, Encoder, batch, ctc_loss, greedy, spectra, teacher, tones

from espnet_gmot.config import GMOTConfig
from espnet_gmot.loss import GMOTLoss


def main(steps: int = 40) -> tuple[dict[str, list[float]], float]:
    """Train on 64 sentences; read 16 others without teacher and transfer.

    Args:
        steps: of optimisation.

    Returns:
        The losses of every step by name, and the share of characters that come out right, 0 to 1.
    """
    torch.manual_seed(0)
    texts = tones.sentences(80)
    encoder = Encoder()
    head = torch.nn.Linear(encoder.width, len(tones.TOKENS))
    gmot = GMOTLoss(GMOTConfig.from_dict({"teacher_width": tones.WIDTH}), encoder.width)  # 1: an adapter and the loss
    parameters = [*encoder.parameters(), *head.parameters(), *gmot.parameters()]  # 2: the adapter learns too
    optimiser = torch.optim.Adam(parameters, lr=0.01)
    history: dict[str, list[float]] = {"ctc": [], "loss_wd": [], "loss_gwd": []}
    for step in range(steps):
        data = batch(texts[step % 4 * 16 : step % 4 * 16 + 16])
        frames, lengths = spectra(data.waves), data.wave_lengths // SHIFT
        encoded = encoder(frames)
        ctc = ctc_loss(head(encoded).log_softmax(2), lengths, data.tokens, data.token_lengths, "mean")
        transfer, stats = gmot(encoded, lengths, *teacher(data.texts))  # 3: what to add to the loss
        optimiser.zero_grad()
        (ctc + transfer).backward()
        optimiser.step()
        for name, value in (("ctc", ctc), *stats.items()):
            history.setdefault(name, []).append(float(value.detach()))
        print(" ".join(f"{name} {history[name][-1]:.3f}" for name in ("ctc", "loss_wd", "loss_gwd")))

    data = batch(texts[64:])  # from here on the teacher is gone, and so may be `gmot`
    frames, lengths = spectra(data.waves), data.wave_lengths // SHIFT
    with torch.no_grad():
        said = greedy(head(encoder(frames)).log_softmax(2), lengths)
    right = sum(text == heard for text, heard in zip(data.texts, said, strict=True)) / len(said)
    print(f"sentences right: {right:.0%}")
    return history, right


if __name__ == "__main__":
    main()
