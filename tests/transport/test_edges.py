"""Factored edges against their own matrices, and the matrices against loops."""

import math
from collections.abc import Sequence

import pytest
import torch

from espnet_gmot.transport import (
    CosineEdges,
    DenseEdges,
    Edges,
    SumEdges,
    TemporalEdges,
    cosine_cost,
    cosine_edges,
    fused_gromov_wasserstein,
    temporal_edges,
)
from tests import reference
from tests.transport import fgw_cases

LENGTHS = torch.tensor([9, 6, 1])


def _edges(kind: str, dtype: torch.dtype = torch.double) -> Edges:
    g = torch.Generator().manual_seed(3)
    h, other = (torch.randn(3, 9, 4, generator=g, dtype=dtype) for _ in range(2))
    h[1, 2] = 0.0
    cosine, temporal = CosineEdges(h), TemporalEdges(LENGTHS, 9, dtype=dtype)
    banded = TemporalEdges(LENGTHS, 9, 3, dtype)
    return {
        "cosine": cosine,
        "temporal": temporal,
        "banded": banded,
        "sum": SumEdges([(0.3, cosine), (0.5, temporal), (0.2, banded), (0.4, CosineEdges(other))]),
        "mixed": SumEdges([(1.0, cosine), (2.0, DenseEdges(cosine_edges(other)))]),
    }[kind]


KINDS = ["cosine", "temporal", "banded", "sum", "mixed"]


@pytest.mark.parametrize("kind", KINDS)
def test_factored_products_equal_dense_ones(kind: str) -> None:
    edges, columns, weights = _edges(kind), torch.rand(3, 9, 5).double(), torch.rand(3, 9).double()
    dense = edges.dense()
    torch.testing.assert_close(edges.apply(columns), dense @ columns)
    torch.testing.assert_close(edges.hadamard(edges, weights), torch.einsum("bij,bj->bi", dense**2, weights))
    for other in map(_edges, KINDS):
        expected = torch.einsum("bij,bj->bi", dense * other.dense(), weights)
        torch.testing.assert_close(edges.hadamard(other, weights), expected)
    torch.testing.assert_close(dense, dense.mT, atol=1e-12, rtol=0)  # features' products differ in the last bit


class Constant(Edges):
    """Every pair at the same distance: a third kind, which leaves what it doesn't know to others as all kinds do."""

    tensors = ()

    def __init__(self, distance: float, shape: tuple[int, int]) -> None:
        self.distance, self.size = distance, shape

    def with_tensors(self, tensors: Sequence[torch.Tensor]) -> "Constant":
        """The same edges."""
        return self

    def to(self, dtype: torch.dtype) -> "Constant":
        """The same edges."""
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """(B, N)."""
        return self.size

    def apply(self, columns: torch.Tensor) -> torch.Tensor:
        """A·columns."""
        return self.distance * columns.sum(1, keepdim=True).expand_as(columns)

    def dense(self) -> torch.Tensor:
        """A itself."""
        return torch.full((*self.size, self.size[1]), self.distance, dtype=torch.double)

    def hadamard_with(self, other: Edges, weights: torch.Tensor) -> torch.Tensor | None:
        """What a constant makes of its own kind."""
        if isinstance(other, Constant):
            return self.distance * other.distance * weights.sum(1, keepdim=True).expand_as(weights)
        return None


def test_a_third_kind_meets_those_that_know_it_and_no_others() -> None:
    """Two kinds that delegate to each other once recursed for ever."""
    third, weights = Constant(0.7, (3, 9)), torch.rand(3, 9).double()
    with_matrix = DenseEdges(_edges("cosine").dense())
    for other in (Constant(0.2, (3, 9)), with_matrix, SumEdges([(0.5, with_matrix), (2.0, third)])):
        expected = torch.einsum("bij,bij,bj->bi", third.dense(), other.dense(), weights)
        torch.testing.assert_close(third.hadamard(other, weights), expected)
        torch.testing.assert_close(other.hadamard(third, weights), expected)
    for kind in ("cosine", "temporal", "banded", "sum"):
        known = _edges(kind)
        for one, two in ((third, known), (known, third)):
            with pytest.raises(TypeError, match="don't know how to multiply"):
                one.hadamard(two, weights)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_the_solver_takes_a_third_kind(backend: str) -> None:
    case = fgw_cases.speech_like(3, (20, 30), (5, 9))
    cost, _, linguistic, *lengths = case.dense()
    third = Constant(0.7, (3, cost.shape[1]))
    kwargs = {"backend": "torch" if backend == "torch" else "auto"}
    ours = fused_gromov_wasserstein(cost, third, linguistic, *lengths, **kwargs)
    dense = fused_gromov_wasserstein(cost, third.dense().float(), linguistic, *lengths, **kwargs)
    torch.testing.assert_close(ours.value, dense.value, atol=1e-5, rtol=0)


def test_matrices_equal_loops() -> None:
    g = torch.Generator().manual_seed(0)
    h, z = torch.randn(2, 5, 3, generator=g), torch.randn(2, 4, 3, generator=g)
    h[0, 1] = 0.0
    cost, edges, times = cosine_cost(h, z), cosine_edges(h), temporal_edges(torch.tensor([5, 3]), 5)
    band = temporal_edges(torch.tensor([5, 3]), 5, radius=2)
    for b in range(2):
        for i in range(5):
            for j in range(4):
                expected = reference.cosine_distance(h[b, i].numpy(), z[b, j].numpy())
                assert cost[b, i, j].item() == pytest.approx(expected, abs=1e-6)
            for k in range(5):
                expected = reference.cosine_distance(h[b, i].numpy(), h[b, k].numpy())
                assert edges[b, i, k].item() == pytest.approx(expected, abs=1e-6)
                assert times[b, i, k].item() == pytest.approx(abs(i - k) / (5, 3)[b])
                assert band[b, i, k].item() == pytest.approx(min(abs(i - k), 2) / 2)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("kind", ["cosine", "temporal", "banded", "sum"])
@pytest.mark.parametrize("rho", [(math.inf, math.inf), (0.3, math.inf), (0.5, 0.2)], ids=str)
def test_solver_does_not_care_how_edges_are_stored(kind: str, backend: str, rho: tuple[float, float]) -> None:
    case = fgw_cases.speech_like(3, (40, 60), (5, 9), width=4)  # rank below half the length: stays factored
    lengths, size = case.acoustic_lengths, case.acoustic.shape[1]
    cosine, temporal = CosineEdges(case.acoustic), TemporalEdges(lengths, size)
    banded = TemporalEdges(lengths, size, 5)
    edges = {
        "cosine": cosine,
        "temporal": temporal,
        "banded": banded,
        "sum": SumEdges([(0.4, cosine), (0.6, temporal), (0.3, banded)]),
    }[kind]
    cost, _, linguistic, *lengths = case.dense()
    kwargs = {"backend": backend, "tolerance": 0.0, "outer_iterations": 12, "inner_iterations": 30}
    kwargs |= {"rho_acoustic": rho[0], "rho_linguistic": rho[1]}
    factored = fused_gromov_wasserstein(cost, edges, CosineEdges(case.linguistic), *lengths, **kwargs)
    dense = fused_gromov_wasserstein(cost, edges.dense(), linguistic, *lengths, **kwargs)
    torch.testing.assert_close(factored.value, dense.value, atol=1e-5, rtol=0)
    torch.testing.assert_close(factored.gap, dense.gap, atol=2e-5, rtol=0)


def test_bad_edges_are_named() -> None:
    with pytest.raises(ValueError, match="radius is 0"):
        TemporalEdges(LENGTHS, 9, 0)
    with pytest.raises(ValueError, match="terms is empty"):
        SumEdges([])
    with pytest.raises(ValueError, match=r"features have shape \(3, 4\)"):
        CosineEdges(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="an edge weight is -1"):
        SumEdges([(-1, _edges("cosine"))])


@pytest.mark.parametrize(("size", "width"), [(9, 16), (60, 257)])  # (9, 16) is where one BLAS rounds the halves apart
def test_dense_cosine_edges_of_nearly_equal_rows_are_symmetric(size: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(1, 1, width, generator=generator)
    h = common + 1e-4 * torch.randn(2, size, width, generator=generator)
    edges, lengths = cosine_edges(h), torch.tensor([size, size])
    assert torch.equal(edges, edges.mT)
    result = fused_gromov_wasserstein(cosine_cost(h, h), edges, edges, lengths, lengths, alpha=0.5, backend="torch")
    assert torch.isfinite(result.value).all()
