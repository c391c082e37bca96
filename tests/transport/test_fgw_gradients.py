"""Envelope gradients: finite differences, unrolled autodiff, factored edges straight to the features."""

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
)
from tests.transport import fgw_cases

EXACT = {"epsilon": 0.2, "outer_iterations": 150, "inner_iterations": 60, "tolerance": 1e-8, "backend": "torch"}


def _case() -> fgw_cases.Case:
    return fgw_cases.speech_like(2, (4, 5), (2, 3), width=3, dtype=torch.double)


@pytest.mark.parametrize("part", ["value", "linear", "quadratic"])
def test_gradient_at_a_fixed_plan_by_finite_differences(part: str) -> None:
    """The parts by themselves are not minimised: their gradient is the partial one, so one step from a given plan."""
    case = _case()
    result = fused_gromov_wasserstein(*case.dense(), **EXACT)
    cost, a, b = (x.clone().requires_grad_() for x in case.dense()[:3])
    solved = fused_gromov_wasserstein(cost, a, b, *case.dense()[3:], **EXACT)
    grads = torch.autograd.grad(getattr(solved, part).sum(), (cost, a, b), allow_unused=True)

    def at_plan(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        plan, p, q = result.plan, result.plan.sum(2), result.plan.sum(1)
        linear = (cost * plan).sum((1, 2))
        square = torch.einsum("bik,bi,bk->b", a**2, p, p) + torch.einsum("bjl,bj,bl->b", b**2, q, q)
        quadratic = square - 2 * ((a @ plan @ b) * plan).sum((1, 2))
        return {"linear": linear, "quadratic": quadratic, "value": 0.5 * linear + 0.5 * quadratic}[part].sum()

    expected = torch.autograd.functional.jacobian(at_plan, tuple(x.detach() for x in (cost, a, b)))
    for got, want, edges in zip(grads, expected, (False, True, True), strict=True):
        want = 0.5 * (want + want.mT) if edges else want
        torch.testing.assert_close(torch.zeros_like(want) if got is None else got, want, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("edges", ["dense", "cosine", "sum"])
def test_gradcheck_through_the_whole_solver(edges: str) -> None:
    case = _case()
    t, u = case.acoustic_lengths, case.linguistic_lengths
    valid_h, valid_z = case.acoustic.abs().sum(-1, keepdim=True) > 0, case.linguistic.abs().sum(-1, keepdim=True) > 0

    def value(h: Tensor, z: Tensor) -> Tensor:
        h, z = h * valid_h, z * valid_z
        acoustic = {
            "dense": lambda: cosine_edges(h),
            "cosine": lambda: CosineEdges(h),
            "sum": lambda: SumEdges(
                [
                    (0.3, CosineEdges(h)),
                    (0.7, TemporalEdges(t, h.shape[1], dtype=torch.double)),
                    (0.2, TemporalEdges(t, h.shape[1], 2, torch.double)),
                ]
            ),
        }[edges]()
        linguistic = cosine_edges(z) if edges == "dense" else CosineEdges(z)
        return fused_gromov_wasserstein(cosine_cost(h, z), acoustic, linguistic, t, u, **EXACT).value

    h, z = case.acoustic.clone().requires_grad_(), case.linguistic.clone().requires_grad_()
    assert torch.autograd.gradcheck(value, (h, z), eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_envelope_equals_unrolled_autodiff_at_convergence() -> None:
    case = _case()
    t, u = int(case.acoustic_lengths[0]), int(case.linguistic_lengths[0])
    cost, a, b = (x[:1].clone().requires_grad_() for x in case.dense()[:3])
    lengths = case.acoustic_lengths[:1], case.linguistic_lengths[:1]
    value = fused_gromov_wasserstein(cost, a, b, *lengths, **EXACT).value.sum()
    envelope = torch.autograd.grad(value, (cost, a, b))

    def unrolled(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        cost, a, b = cost[0, :t, :u], a[0, :t, :t], b[0, :u, :u]
        log = torch.full((t, u), 1.0 / (t * u), dtype=torch.double).log()
        for _ in range(60):
            plan = log.exp()
            p, q = plan.sum(1), plan.sum(0)
            gradient = 0.5 * cost + ((a**2 @ p)[:, None] + (b**2 @ q)[None, :] - 2 * a @ plan @ b)
            log = log - gradient / 0.05
            for _ in range(60):
                log = log - log.logsumexp(0, keepdim=True) - torch.log(torch.tensor(float(u)))
                log = log - log.logsumexp(1, keepdim=True) - torch.log(torch.tensor(float(t)))
        plan = log.exp()
        square = (a**2 @ plan.sum(1)) @ plan.sum(1) + (b**2 @ plan.sum(0)) @ plan.sum(0)
        return 0.5 * (cost * plan).sum() + 0.5 * (square - 2 * ((a @ plan @ b) * plan).sum())

    value = unrolled(cost, a, b)
    for got, want in zip(envelope, torch.autograd.grad(value, (cost, a, b)), strict=True):
        torch.testing.assert_close(got + got.mT if got.shape[1] == got.shape[2] else got, want + want.mT
                                   if got.shape[1] == got.shape[2] else want, atol=2e-4, rtol=1e-3)  # fmt: skip


def _kl(part: Tensor, whole: Tensor) -> Tensor:
    """Σ p·log(p/q) − p + q."""
    return (torch.xlogy(part, part / whole) - part + whole).sum()


@pytest.mark.parametrize("prior", [0.0, 0.5])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("rho", [float("inf"), 0.3])
@pytest.mark.parametrize("method", ["proximal", "mirror"])
def test_the_gradient_is_that_of_what_the_plan_minimises(method: str, rho: float, alpha: float, prior: float) -> None:
    """Value, prior, penalties and by mirror the entropy, along a line, solved anew; the value of mirror has another."""
    case = fgw_cases.speech_like(1, (5, 5), (3, 3), width=3, dtype=torch.double)
    options = {**EXACT, "method": method, "rho_acoustic": rho, "alpha": alpha, "epsilon_relative": False}
    steer = prior * torch.rand(1, 5, 3, dtype=torch.double, generator=torch.Generator().manual_seed(5))
    direction = torch.randn(case.acoustic.shape, dtype=torch.double, generator=torch.Generator().manual_seed(4))

    def objectives(h: Tensor) -> tuple[Tensor, Tensor]:
        """The value, and all that is minimised."""
        args = cosine_cost(h, case.linguistic), cosine_edges(h), *case.dense()[2:]
        found = fused_gromov_wasserstein(*args, prior=steer, **{**options, "outer_iterations": 3000})
        plan, a, b = found.plan[0], torch.full((5,), 0.2).double(), torch.full((3,), 1 / 3).double()
        more = (steer * plan).sum() + (rho * _kl(plan.sum(1), a) if rho < float("inf") else 0.0)
        more = more + (options["epsilon"] * _kl(plan, a[:, None] * b) if method == "mirror" else 0.0)
        return found.value.sum(), found.value.sum() + more

    h = case.acoustic.clone().requires_grad_()
    ours = (torch.autograd.grad(objectives(h)[0], h)[0] * direction).sum().item()
    with torch.no_grad():
        ahead, behind = (objectives(case.acoustic + step * direction) for step in (1e-4, -1e-4))
    value, all_of_it = (((one - other) / 2e-4).item() for one, other in zip(ahead, behind, strict=True))
    assert ours == pytest.approx(all_of_it, abs=2e-4)
    if method == "mirror":
        assert abs(ours - value) > 1e-3


def test_without_a_share_of_the_edges_their_gradient_is_zero() -> None:
    case = _case()
    cost, a, b = (x.clone().requires_grad_() for x in case.dense()[:3])
    result = fused_gromov_wasserstein(cost, a, b, *case.dense()[3:], **EXACT, alpha=0.0)
    by_value = torch.autograd.grad(result.value.sum(), (cost, a, b), retain_graph=True)
    torch.testing.assert_close(by_value[0], result.plan)
    assert by_value[1].abs().max() == by_value[2].abs().max() == 0
    assert torch.autograd.grad(result.quadratic.sum(), a)[0].abs().max() > 0  # its own


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_backends_share_the_gradient(backend: str) -> None:
    case = fgw_cases.speech_like(4)
    h = case.acoustic.clone().requires_grad_()
    args = cosine_cost(h, case.linguistic), CosineEdges(h), CosineEdges(case.linguistic), *case.dense()[3:]
    kwargs = {"tolerance": 1e-4, "outer_iterations": 400, "inner_iterations": 300}
    result = fused_gromov_wasserstein(*args, backend=backend, **kwargs)
    result.value.sum().backward()
    other = case.acoustic.clone().requires_grad_()
    result = fused_gromov_wasserstein(
        cosine_cost(other, case.linguistic), cosine_edges(other), *case.dense()[2:], **kwargs
    )
    result.value.sum().backward()
    difference = (h.grad - other.grad).norm() / other.grad.norm()
    assert difference < 1e-4
    assert not result.plan.requires_grad
    for grad, length in zip(h.grad, case.acoustic_lengths, strict=True):
        assert not grad[length:].any()


def test_pot_has_the_envelope_gradient_of_its_own_plan() -> None:
    case = fgw_cases.speech_like(3)
    cost, a, b = (x.clone().requires_grad_() for x in case.dense()[:3])
    result = fused_gromov_wasserstein(cost, a, b, *case.dense()[3:], alpha=0.3, backend="pot")
    result.value.sum().backward()
    plan, p = result.plan, result.plan.sum(2)
    torch.testing.assert_close(cost.grad, 0.7 * plan)
    carried = plan @ b.detach() @ plan.mT
    torch.testing.assert_close(a.grad, 0.3 * (2 * a.detach() * p[:, :, None] * p[:, None, :] - carried - carried.mT))


def test_zero_vectors_get_no_gradient() -> None:
    h = torch.zeros(1, 4, 3, requires_grad=True)
    z = torch.randn(1, 2, 3)
    args = cosine_cost(h, z), CosineEdges(h), CosineEdges(z), torch.tensor([4]), torch.tensor([2])
    fused_gromov_wasserstein(*args).value.sum().backward()
    assert h.grad.abs().max() == 0
