"""Batched fused Gromov-Wasserstein for padded sequences: pure mathematics, torch and numpy only.

>>> import torch
>>> from espnet_gmot.transport import cosine_cost, cosine_edges, fused_gromov_wasserstein
>>> h, z = torch.randn(2, 50, 16), torch.randn(2, 10, 16)
>>> lengths = torch.tensor([50, 40]), torch.tensor([10, 7])
>>> result = fused_gromov_wasserstein(cosine_cost(h, z), cosine_edges(h), cosine_edges(z), *lengths, alpha=0.5)
>>> result.value.shape, result.plan.shape
(torch.Size([2]), torch.Size([2, 50, 10]))
"""

from espnet_gmot.transport.costs import cosine_cost, cosine_edges, temporal_edges
from espnet_gmot.transport.edges import CosineEdges, DenseEdges, Edges, SumEdges, TemporalEdges
from espnet_gmot.transport.gromov import fused_gromov_wasserstein
from espnet_gmot.transport.options import Options
from espnet_gmot.transport.priors import diagonal_prior, order_prior
from espnet_gmot.transport.solution import FGWResult

__all__ = [
    "CosineEdges",
    "DenseEdges",
    "Edges",
    "FGWResult",
    "Options",
    "SumEdges",
    "TemporalEdges",
    "cosine_cost",
    "cosine_edges",
    "diagonal_prior",
    "fused_gromov_wasserstein",
    "order_prior",
    "temporal_edges",
]
