"""Couplings without transport, for comparison: how knowledge distillation from a PLM pools frames into tokens.

After "Improving CTC-based speech recognition via knowledge transferring from pre-trained language models"
(arXiv 2203.03582), known here from its abstract alone: every detail below is ours.
"""

import math

import torch

from espnet_gmot.transport.masks import valid


class Attention(torch.nn.Module):
    """Cross-attention: position j of the transcript asks every frame; a frame's share is softmax over the frames.

    Args:
        width: D, columns of the adapted acoustic features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = torch.nn.Linear(width, width)
        self.key = torch.nn.Linear(width, width)

    def forward(
        self, nodes: torch.Tensor, lengths: torch.Tensor, tokens: torch.Tensor, size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Couple frames with token positions.

        Args:
            nodes: (B, T, D) adapted acoustic features.
            lengths: (B,) frames.
            tokens: (B,) tokens.
            size: U, the padded number of tokens.

        Returns:
            The coupling (B, T, U), columns summing to 1 where there is a token, and a quantity loss (B,) of 0.
        """
        frames, width = nodes.shape[1:]
        # both sequences on a common clock from 0 to 1, so that the diagonal is easy to find
        keys = self.key(nodes + _positions(lengths, frames, width))
        queries = self.query(_positions(tokens, size, width))
        score = keys @ queries.mT / math.sqrt(width)
        heard = valid(lengths, frames)[:, :, None]
        score = score.masked_fill(~heard, torch.finfo(score.dtype).min)  # not -inf: there may be no frame at all
        plan = score.softmax(1) * heard * valid(tokens, size)[:, None, :]
        return plan, nodes.new_zeros(nodes.shape[0])


class CIF(torch.nn.Module):
    """Continuous integrate-and-fire: frames carry weights; a token fires whenever another unit has been gathered.

    Args:
        width: D, columns of the adapted acoustic features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Linear(width, 1)

    def forward(
        self, nodes: torch.Tensor, lengths: torch.Tensor, tokens: torch.Tensor, size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Couple frames with tokens in order.

        Args:
            nodes: (B, T, D) adapted acoustic features.
            lengths: (B,) frames.
            tokens: (B,) tokens.
            size: U, the padded number of tokens.

        Returns:
            The coupling (B, T, U), columns summing to 1 where there is a token, and the quantity loss (B,): the squared
            difference between the gathered weight and the number of tokens, relative to that number.
        """
        weights = self.weight(nodes).squeeze(-1).sigmoid() * valid(lengths, nodes.shape[1])
        gathered = weights.sum(1)
        wanted = tokens.to(weights.dtype)
        quantity = ((gathered - wanted) / wanted.clamp(min=1)).square()
        # scaled to the true number of tokens, as teacher forcing; frame t then covers [end - weight, end] of [0, U]
        weights = weights * (wanted / gathered.clamp(min=1e-8))[:, None]
        end = weights.cumsum(1)[:, :, None]
        start = end - weights[:, :, None]
        token = torch.arange(size, device=nodes.device)
        overlap = torch.minimum(end, token + 1.0) - torch.maximum(start, token.to(end.dtype))
        return overlap.clamp(min=0) * valid(tokens, size)[:, None, :], quantity


def _positions(lengths: torch.Tensor, size: int, width: int) -> torch.Tensor:
    """Sinusoids (B, size, width) of the relative position i / length."""
    time = torch.arange(size, device=lengths.device)[None, :, None] / lengths.clamp(min=1)[:, None, None]
    octave = torch.arange((width + 1) // 2, device=lengths.device)
    angle = math.pi * time * 1.5 ** (octave % 16)
    return torch.cat([angle.sin(), angle.cos()], -1)[..., :width]
