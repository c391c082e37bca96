"""The plan's implicit gradient: finite differences, unrolled Sinkhorn, and what ALIGN sees of it."""

import math

import pytest
import torch
from torch import Tensor

from espnet_gmot.transport import (
    CosineEdges,
    SumEdges,
    TemporalEdges,
    cosine_cost,
    cosine_edges,
    fused_gromov_wasserstein,
    order_prior,
)
from tests.transport import fgw_cases

SOLVED = {
    "method": "mirror",
    "plan_gradient": "implicit",
    "outer_iterations": 400,
    "inner_iterations": 400,
    "tolerance": 1e-12,
    "backend": "torch",
}
CASES = {
    "transport": {"alpha": 0.0, "epsilon": 0.1},
    "dense": {"alpha": 0.5, "epsilon": 0.3},
    "cosine": {"alpha": 0.3, "epsilon": 0.2, "epsilon_relative": False},
    "sum": {"alpha": 0.4, "epsilon": 0.4},
    "edges alone": {"alpha": 1.0, "epsilon": 0.8},
    "relaxed frames": {"alpha": 0.3, "epsilon": 0.3, "rho_acoustic": 0.4},
    "relaxed tokens": {"alpha": 0.3, "epsilon": 0.2, "epsilon_relative": False, "rho_linguistic": 0.5},
    "both relaxed": {"alpha": 0.5, "epsilon": 0.3, "rho_acoustic": 0.7, "rho_linguistic": 0.2},
    "free frames": {"alpha": 0.2, "epsilon": 0.3, "rho_acoustic": 0.0},
    "prior": {"alpha": 0.3, "epsilon": 0.3},
}


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name: str) -> None:
    case = fgw_cases.speech_like(2, (4, 5), (2, 3), width=3, dtype=torch.double)
    t, u = case.acoustic_lengths, case.linguistic_lengths
    weights = torch.rand(2, 5, generator=torch.Generator().manual_seed(1)).double()
    weights[0, 1] = 0.0
    prior = order_prior(t, u, lambda1=0.3, dtype=torch.double) if name == "prior" else None
    valid = [(x.abs().sum(-1, keepdim=True) > 0) for x in (case.acoustic, case.linguistic)]

    def plan(h: Tensor, z: Tensor) -> Tensor:
        h, z = h * valid[0], z * valid[1]
        acoustic = {
            "dense": lambda: cosine_edges(h),
            "sum": lambda: SumEdges([(0.3, CosineEdges(h)), (0.7, TemporalEdges(t, h.shape[1], dtype=torch.double))]),
        }.get(name, lambda: CosineEdges(h))()
        linguistic = cosine_edges(z) if name == "dense" else CosineEdges(z)
        result = fused_gromov_wasserstein(
            cosine_cost(h, z),
            acoustic,
            linguistic,
            t,
            u,
            prior=prior,
            acoustic_weights=weights,
            **SOLVED,
            **CASES[name],
        )
        return result.plan

    inputs = [x.clone().requires_grad_() for x in (case.acoustic, case.linguistic)]
    assert torch.autograd.gradcheck(plan, inputs, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


def test_equals_unrolled_sinkhorn() -> None:
    g = torch.Generator().manual_seed(0)
    cost = torch.rand(1, 6, 4, generator=g, dtype=torch.double, requires_grad=True)
    weight = torch.randn(1, 6, 4, generator=g, dtype=torch.double)
    edges = torch.zeros(1, 6, 6, dtype=torch.double), torch.zeros(1, 4, 4, dtype=torch.double)
    options = {**SOLVED, "alpha": 0.0, "epsilon": 0.1, "epsilon_relative": False}
    result = fused_gromov_wasserstein(cost, *edges, torch.tensor([6]), torch.tensor([4]), **options)
    (ours,) = torch.autograd.grad((result.plan * weight).sum(), cost)
    log = -cost[0] / 0.1
    for _ in range(500):
        log = log - log.logsumexp(0, keepdim=True) - math.log(4)
        log = log - log.logsumexp(1, keepdim=True) - math.log(6)
    (unrolled,) = torch.autograd.grad((log.exp() * weight[0]).sum(), cost)
    torch.testing.assert_close(ours, unrolled, atol=1e-9, rtol=1e-6)


def _of_plan(backend: str) -> tuple[torch.Tensor, torch.Tensor, fgw_cases.Case]:
    """Gradients by the frames of a weighed sum of the plan and of its mass."""
    case = fgw_cases.speech_like(4, (20, 30), (4, 8))
    weight = torch.randn(
        4, case.acoustic.shape[1], case.linguistic.shape[1], generator=torch.Generator().manual_seed(3)
    )
    h = case.acoustic.clone().requires_grad_()
    options = {**SOLVED, "epsilon": 0.2, "tolerance": 1e-6, "backend": backend}
    args = cosine_cost(h, case.linguistic), CosineEdges(h), CosineEdges(case.linguistic), *case.dense()[3:]
    plan = fused_gromov_wasserstein(*args, **options).plan
    (grad,) = torch.autograd.grad((plan * weight).sum(), h, retain_graph=True)
    return grad, torch.autograd.grad(plan.sum(), h)[0], case


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_masses_are_kept(backend: str) -> None:
    """Every plan sums to one whatever the features."""
    grad, mass, case = _of_plan(backend)
    assert mass.abs().max() < 1e-3 * grad.abs().max()
    for row, length in zip(grad, case.acoustic_lengths, strict=True):
        assert row.isfinite().all() and not row[length:].any()


def test_torch_and_numba_share_it() -> None:
    torchs, numbas = _of_plan("torch")[0], _of_plan("numba")[0]
    assert (torchs - numbas).norm() < 1e-2 * torchs.norm()


def test_needs_the_entropic_method() -> None:
    case = fgw_cases.speech_like(1)
    with pytest.raises(ValueError, match="plan_gradient is 'implicit' with method 'proximal'"):
        fused_gromov_wasserstein(*case.dense(), plan_gradient="implicit")
    with pytest.raises(ValueError, match="and backend 'pot'"):
        fused_gromov_wasserstein(*case.dense(), plan_gradient="implicit", method="mirror", backend="pot")
    with pytest.raises(ValueError, match="plan_gradient is 'on'"):
        fused_gromov_wasserstein(*case.dense(), plan_gradient="on")
