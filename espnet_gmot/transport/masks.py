"""Masks from lengths: the one place where padding is told from what counts."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["valid"]


def valid(lengths: Tensor, size: int) -> Tensor:
    """Which of `size` places lie within each length.

    Args:
        lengths: (B,) whole numbers; 0 leaves a row of False.
        size: N, the padded length.

    Returns:
        (B, N) bool on the lengths' device; its complement is the padding.
    """
    return torch.arange(size, device=lengths.device) < lengths[:, None]
