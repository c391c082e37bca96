"""Ten thousand hostile problems: nothing but finite numbers may come out."""

import pytest
import torch

from espnet_gmot.transport import cosine_cost, cosine_edges, fused_gromov_wasserstein

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


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


@pytest.mark.parametrize(("backend", "batches"), [("numba", 380), ("torch", 20)])
def test_nothing_is_ever_not_finite(backend: str, batches: int) -> None:
    g = torch.Generator().manual_seed(11)
    for number in range(batches):
        problem = _hostile(g, 25)
        result = fused_gromov_wasserstein(**problem, backend=backend)
        result.value.sum().backward()
        leaves = [problem[name].grad for name in ("cost", "acoustic_edges", "linguistic_edges")]
        for tensor in (result.value, result.plan, result.marginal_error, result.gap, *leaves):
            assert tensor.isfinite().all(), (number, {k: v for k, v in problem.items() if not torch.is_tensor(v)})
        assert (result.plan >= 0).all() and (result.value >= 0).all()


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
