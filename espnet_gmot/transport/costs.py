"""Node costs and dense edges from features."""

from __future__ import annotations

import torch
from torch import Tensor

from espnet_gmot.transport.edges import CosineEdges, TemporalEdges, unit_vectors

__all__ = ["cosine_cost", "cosine_edges", "temporal_edges"]


def cosine_cost(acoustic: Tensor, linguistic: Tensor) -> Tensor:
    """M[i, j] = 1 − cos(h_i, z_j), the node cost of GM-OT [1]_.

    Args:
        acoustic: (B, T, D) acoustic features; half precision is raised to float32, also under autocast.
        linguistic: (B, U, D) linguistic features.

    Returns:
        (B, T, U) in [0, 2]; 1 where either vector is zero.

    Raises:
        ValueError: the batch sizes or widths differ.

    References:
        .. [1] Lu et al., "Cross-modal knowledge transfer learning as graph matching based on optimal transport for
           ASR", Interspeech 2025, arXiv 2505.13079.
    """
    if acoustic.dim() != 3 or linguistic.dim() != 3 or acoustic.shape[::2] != linguistic.shape[::2]:
        raise ValueError(
            f"acoustic has shape {tuple(acoustic.shape)} and linguistic {tuple(linguistic.shape)}; "
            "expected (B, T, D) and (B, U, D)"
        )
    with torch.autocast(acoustic.device.type, enabled=False):
        return 1.0 - unit_vectors(acoustic) @ unit_vectors(linguistic).mT


def cosine_edges(features: Tensor) -> Tensor:
    """A[i, k] = 1 − cos(h_i, h_k), dense; `CosineEdges` is the factored form.

    Args:
        features: (B, N, D).

    Returns:
        (B, N, N) in [0, 2], symmetric; 1 in rows and columns of zero vectors.
    """
    with torch.autocast(features.device.type, enabled=False):
        edges = CosineEdges(features).dense()
        # a product of matrices rounds its two halves apart, which shows where rows are nearly equal and edges tiny
        return 0.5 * (edges + edges.mT)


def temporal_edges(
    lengths: Tensor, size: int | None = None, *, radius: int | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A[i, k] = |i − k| / length, or min(|i − k|, radius) / radius, dense; `TemporalEdges` is the factored form.

    Args:
        lengths: (B,) valid nodes of each sample.
        size: N, the padded length; the longest length by default.
        radius: None, or the number of nodes beyond which all pairs are equally far.
        dtype: floating type of the result.

    Returns:
        (B, N, N), symmetric, zero diagonal; the same for the reversed sequence, so cost or prior must break that tie.
    """
    size = int(lengths.max()) if size is None else size
    return TemporalEdges(lengths, size, radius, dtype).dense()
