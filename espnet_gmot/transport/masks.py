"""Masks from lengths: the one place where padding is told from what counts."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["TINY", "marginals", "valid"]

#: What no sum of masses is smaller than that something is divided by.
TINY = 1e-30


def valid(lengths: Tensor, size: int) -> Tensor:
    """Which of `size` places lie within each length.

    Args:
        lengths: (B,) whole numbers; 0 leaves a row of False.
        size: N, the padded length.

    Returns:
        (B, N) bool on the lengths' device; its complement is the padding.
    """
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def marginals(weights: Tensor | None, lengths: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Masses of the nodes, without gradient: non-negative, summing to one over the valid ones.

    Args:
        weights: (B, N) how much each node counts, anything on padding; None for all alike.
        lengths: (B,) valid nodes of each sample.
        size: N, the padded length.
        dtype: floating type of the result.

    Returns:
        (B, N); 0 on padding, and everywhere in a sample without mass.
    """
    inside = valid(lengths, size)
    if weights is None:
        return inside.to(dtype) / lengths.clamp(min=1).to(dtype)[:, None]
    weights = weights.detach().to(dtype).clamp(min=0.0).masked_fill(~inside, 0.0)
    # by the largest first, so that neither huge nor tiny weights leave the floating range
    weights = weights / weights.amax(-1, keepdim=True).clamp(min=TINY) if size else weights
    return weights / weights.sum(-1, keepdim=True).clamp(min=TINY)
