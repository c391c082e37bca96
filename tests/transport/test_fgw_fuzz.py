"""Ten thousand hostile problems: nothing but finite numbers may come out. ``make fuzz`` tries a hundred thousand."""

import math
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings, target
from hypothesis import strategies as st

from espnet_gmot.transport import cosine_cost, cosine_edges, fused_gromov_wasserstein

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
#: Problems of both tests together, a quarter of them the search's; a batch holds 25.
PROBLEMS = int(os.environ.get("GMOT_FUZZ", "12000"))
BATCH = 25


def _draw(g: torch.Generator, choices: list) -> float:
    return choices[int(torch.randint(len(choices), (1,), generator=g))]


def _hostile(g: torch.Generator, batch: int) -> dict:
    """Random shapes, magnitudes from 1e-8 to 1e8, repeated and zero rows, weights with zeros."""
    t, u = (int(torch.randint(1, high, (1,), generator=g)) for high in (24, 12))
    h, z = torch.randn(batch, t, 3, generator=g), torch.randn(batch, u, 3, generator=g)
    h[torch.rand(batch, t, generator=g) < 0.2] = 0.0
    h[:, : t // 2] = h[:, :1] if torch.rand((), generator=g) < 0.3 else h[:, : t // 2]
    size, edge = _draw(g, [1e-8, 1e-3, 1.0, 1e3, 1e8]), _draw(g, [1e-8, 1e-3, 1.0, 1e3, 1e8])
    return {
        "cost": (size * cosine_cost(h, z)).requires_grad_(),
        "acoustic_edges": (edge * cosine_edges(h)).requires_grad_(),
        "linguistic_edges": (edge * _draw(g, [1.0, 1e-2]) * cosine_edges(z)).requires_grad_(),
        "acoustic_lengths": torch.randint(0, t + 1, (batch,), generator=g),
        "linguistic_lengths": torch.randint(0, u + 1, (batch,), generator=g),
        "alpha": _draw(g, [0.0, 0.3, 0.5, 1.0]),
        "epsilon": _draw(g, [1e-4, 1e-3, 1e-2, 0.1, 10.0]),
        "rho_acoustic": _draw(g, [0.0, 1e-3, 1.0, float("inf"), float("inf")]),
        "rho_linguistic": _draw(g, [0.0, 1.0, float("inf"), float("inf")]),
        "acoustic_weights": _draw(g, [None, torch.rand(batch, t, generator=g).round(decimals=1) ** 6]),
        "method": _draw(g, ["proximal", "mirror"]),
        "outer_iterations": 8,
        "inner_iterations": 15,
    }


def _solve(problem: dict, backend: str) -> float:
    """Solve and differentiate; everything must be finite. Returns the largest marginal error."""
    result = fused_gromov_wasserstein(**problem, backend=backend)
    result.value.sum().backward()
    leaves = [problem[name].grad for name in ("cost", "acoustic_edges", "linguistic_edges")]
    assert not result.gap.isnan().any()  # a bound that is infinite certifies nothing, and is right
    for tensor in (result.value, result.plan, result.marginal_error, *leaves):
        assert tensor.isfinite().all(), {k: v for k, v in problem.items() if not torch.is_tensor(v)}
    assert (result.plan >= 0).all() and (result.value >= 0).all()
    return float(result.marginal_error.max())


@pytest.mark.parametrize(("backend", "share"), [("numba", 0.71), ("torch", 0.04)])
def test_nothing_is_ever_not_finite(backend: str, share: float) -> None:
    g = torch.Generator().manual_seed(11)
    for _ in range(int(share * PROBLEMS / BATCH)):
        _solve(_hostile(g, BATCH), backend)


MAGNITUDE = st.floats(-12, 8)  # powers of ten; cosine costs and edges lie in 0 … 2


@settings(
    max_examples=max(1, PROBLEMS // 4 // BATCH),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 20)),
    magnitudes=st.tuples(MAGNITUDE, MAGNITUDE, MAGNITUDE),
    closeness=st.floats(-12, 0),
    sparsity=st.floats(0, 1),
    alpha=st.one_of(st.sampled_from([0.0, 1.0, 1e-12, 1 - 1e-7]), st.floats(0, 1)),
    epsilon=st.floats(-6, 3),
    rhos=st.tuples(*[st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 1e6, math.inf])] * 2),
    method=st.sampled_from(["proximal", "mirror"]),
    weighted=st.booleans(),
)
def test_a_search_for_ill_conditioned_problems_finds_none_that_is_not_finite(
    seed: int,
    shape: tuple[int, int],
    magnitudes: tuple[float, float, float],
    closeness: float,
    sparsity: float,
    alpha: float,
    epsilon: float,
    rhos: tuple[float, float],
    method: str,
    weighted: bool,
) -> None:
    """Rows that differ by 10^closeness, entries that are zero, scales far apart: the search drives them to extremes."""
    g = torch.Generator().manual_seed(seed)
    t, u = shape
    h = torch.randn(BATCH, 1, 4, generator=g) + 10**closeness * torch.randn(BATCH, t, 4, generator=g)
    z = torch.randn(BATCH, 1, 4, generator=g) + 10**closeness * torch.randn(BATCH, u, 4, generator=g)
    matrices = {}
    for name, value, magnitude in zip(
        ("cost", "acoustic_edges", "linguistic_edges"),
        (cosine_cost(h, z), cosine_edges(h), cosine_edges(z)),
        magnitudes,
        strict=True,
    ):
        kept = (torch.rand(value.shape[-2:], generator=g) >= sparsity).float()
        if name != "cost":  # symmetric to the bit, where rows are so close that rounding shows
            kept, value = torch.minimum(kept, kept.mT), (value + value.mT) / 2
        matrices[name] = (10**magnitude * value * kept).requires_grad_()
    weights = (torch.rand(BATCH, t, generator=g) >= sparsity).float() if weighted else None
    error = _solve(
        {
            **matrices,
            "acoustic_lengths": torch.randint(0, t + 1, (BATCH,), generator=g),
            "linguistic_lengths": torch.randint(0, u + 1, (BATCH,), generator=g),
            "alpha": alpha,
            "epsilon": 10**epsilon,
            "rho_acoustic": rhos[0],
            "rho_linguistic": rhos[1],
            "acoustic_weights": weights,
            "method": method,
            "outer_iterations": 8,
            "inner_iterations": 15,
        },
        "numba",
    )
    target(max(magnitudes) - min(magnitudes), label="scales apart")
    target(-closeness - epsilon, label="condition")
    target(sparsity, label="sparsity")
    target(math.log10(max(error, 1e-30)), label="marginal error")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast(dtype: torch.dtype) -> None:
    h = torch.randn(3, 20, 8).to(dtype).requires_grad_()
    z = torch.randn(3, 5, 8).to(dtype)
    lengths = torch.tensor([20, 15, 3]), torch.tensor([5, 4, 5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = fused_gromov_wasserstein(cosine_cost(h, z), cosine_edges(h), cosine_edges(z), *lengths)
        result.value.sum().backward()
    assert result.value.dtype == torch.float32 and h.grad.dtype == dtype and h.grad.isfinite().all()
    full = h.detach().float()
    exact = fused_gromov_wasserstein(
        cosine_cost(full, z.float()), cosine_edges(full), cosine_edges(z.float()), *lengths
    )
    torch.testing.assert_close(result.value, exact.value)
    half = fused_gromov_wasserstein(
        *(x.to(dtype) for x in (cosine_cost(h, z), cosine_edges(h), cosine_edges(z))), *lengths
    )
    torch.testing.assert_close(half.value, exact.value, atol=0.02, rtol=0)
