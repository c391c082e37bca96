"""What the examples without ESPnet share: batches of tones, and a small CTC recogniser to train on them."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import tones  # one sentence is a row of tones, one for every character

SHIFT = 320  # samples a frame, 20 ms
BINS = SHIFT // 2 + 1
BLANK = tones.TOKENS.index("<blank>")


@dataclass(frozen=True)
class Batch:
    """B utterances, padded.

    Attributes:
        texts: the transcripts.
        waves: (B, S) samples; `wave_lengths` (B,) how many count.
        tokens: (B, U) token numbers; `token_lengths` (B,) how many count.
    """

    texts: list[str]
    waves: Tensor
    wave_lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor


def batch(texts: list[str]) -> Batch:
    """Speak and tokenise some texts."""
    waves = [torch.from_numpy(tones.speech(text)) for text in texts]
    tokens = [torch.tensor([tones.TOKENS.index(character) for character in text]) for text in texts]
    lengths = [torch.tensor([len(row) for row in rows]) for rows in (waves, tokens)]
    return Batch(texts, pad_sequence(waves, True), lengths[0], pad_sequence(tokens, True), lengths[1])


def teacher(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Features (B, U, tones.WIDTH) of texts and their lengths (B,), as `espnet_gmot.teacher.plm.PLMTeacher` gives them.

    It looks them up in a table, to run offline; yours is `PLMTeacher("bert-base-chinese")`, called the same way.
    """
    rows = [torch.from_numpy(tones.teacher(text)) for text in texts]
    return pad_sequence(rows, True), torch.tensor([len(row) for row in rows])


def spectra(waves: Tensor) -> Tensor:
    """Log spectra (B, S // SHIFT, BINS) of waves (B, S)."""
    return torch.fft.rfft(waves.unfold(1, SHIFT, SHIFT)).abs().log1p()


class Encoder(torch.nn.Module):
    """Two convolutions over time: (B, T, BINS) → (B, T, width)."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.width = width
        self.layers = torch.nn.Sequential(
            torch.nn.Conv1d(BINS, width, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv1d(width, width, 5, padding=2)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Encoded frames, as many as came in."""
        return self.layers(features.mT).mT


def ctc_loss(log_probs: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor, reduction: str) -> Tensor:
    """CTC's loss of log-probabilities (B, T, V); reduction sum, or mean for the mean over tokens and batch."""
    return torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), tokens, lengths, token_lengths, blank=BLANK, reduction=reduction
    )


def greedy(log_probs: Tensor, lengths: Tensor) -> list[str]:
    """The best path's texts: repeats merged, blanks left out."""
    paths = [torch.unique_consecutive(row[:length]) for row, length in zip(log_probs.argmax(2), lengths, strict=True)]
    return ["".join(tones.TOKENS[token] for token in path.tolist() if token != BLANK) for path in paths]
