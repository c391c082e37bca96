"""The solver against slow loops, POT and exact linear programs."""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_gmot.transport import fused_gromov_wasserstein, order_prior
from tests import reference
from tests.transport import fgw_cases

BACKENDS = ["torch", "numba", "pot"]
TIGHT = {"epsilon": 0.05, "outer_iterations": 400, "inner_iterations": 300, "tolerance": 1e-5}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_value_is_the_definition_at_the_plan(backend: str, alpha: float) -> None:
    case = fgw_cases.speech_like(3, (5, 9), (2, 4))
    result = fused_gromov_wasserstein(*case.dense(), alpha=alpha, backend=backend)
    for i in range(3):
        cost, a, b = case.numpy(i)
        plan = result.plan[i, : cost.shape[0], : cost.shape[1]].double().numpy()
        assert result.value[i].item() == pytest.approx(reference.fgw_value(cost, a, b, plan, alpha), abs=2e-6)
        assert result.quadratic[i].item() == pytest.approx(reference.gw_energy(a, b, plan), abs=2e-6)
        np.testing.assert_allclose(plan.sum(1), 1 / cost.shape[0], atol=1e-6)
        np.testing.assert_allclose(plan.sum(0), 1 / cost.shape[1], atol=1e-6)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_steps_equal_the_plain_loops(backend: str) -> None:
    case = fgw_cases.speech_like(4, (6, 10), (2, 5))
    options = {"alpha": 0.4, "epsilon": 1.0, "epsilon_relative": False, "outer_iterations": 4, "inner_iterations": 500}
    result = fused_gromov_wasserstein(*case.dense(), **options, tolerance=0.0, backend=backend)
    for i in range(4):
        cost, a, b = case.numpy(i)
        t, u = cost.shape
        plan = reference.proximal_fgw(cost, a, b, np.full(t, 1 / t), np.full(u, 1 / u), 0.4, 1.0, 4, 500)
        np.testing.assert_allclose(result.plan[i, :t, :u].numpy(), plan, atol=2e-6)


def test_as_good_as_conditional_gradient_on_speech_like_problems() -> None:
    case = fgw_cases.speech_like(60, (20, 50), (4, 12), seed=3)
    ours = fused_gromov_wasserstein(*case.dense(), alpha=0.5)
    pot = fused_gromov_wasserstein(*case.dense(), alpha=0.5, backend="pot", outer_iterations=1000)
    assert bool(ours.converged.all()) and bool(pot.converged.all())
    assert ours.value.mean().item() <= 1.0005 * pot.value.mean().item()
    assert (ours.value / pot.value).max().item() <= 1.01


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 12), tokens=st.integers(1, 9), skewed=st.booleans())
def test_exact_optimal_transport_at_alpha_zero(seed: int, frames: int, tokens: int, skewed: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    cost = torch.rand(1, frames, tokens, generator=g)
    a, b = torch.rand(1, frames, generator=g) ** (4 if skewed else 0), torch.rand(1, tokens, generator=g)
    edges = torch.zeros(1, frames, frames), torch.zeros(1, tokens, tokens)
    lengths = torch.tensor([frames]), torch.tensor([tokens])
    result = fused_gromov_wasserstein(
        cost, *edges, *lengths, alpha=0.0, acoustic_weights=a, linguistic_weights=b, **TIGHT
    )
    p, q = (w[0].double().numpy() / w[0].double().sum().item() for w in (a, b))
    exact = ot.emd2(p, q / q.sum() * p.sum(), cost[0].double().numpy())
    assert exact - 1e-6 <= result.value.item() <= exact + 2e-3
    # the gap certifies what it claims: the optimum is no further away
    assert result.value.item() - result.gap.item() <= exact + 1e-6


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.1, 0.5, 0.9]))
def test_stationary_and_never_far_above_pot_on_random_problems(seed: int, alpha: float) -> None:
    case = fgw_cases.speech_like(1, (6, 14), (3, 6), width=4, signal=1.0, seed=seed)
    ours = fused_gromov_wasserstein(*case.dense(), alpha=alpha, **TIGHT)
    assert ours.gap.item() <= 5e-3
    if alpha < 0.9:  # the nearer to 1, the less convex: both then end in local minima, at times in different ones
        pot = fused_gromov_wasserstein(*case.dense(), alpha=alpha, backend="pot", outer_iterations=1000)
        # of the first 3,000 seeds none is above POT at 0.1, and at 0.5 two are by more than 3 %, the worst by 5.5 %
        assert ours.value.item() <= {0.1: 1.0, 0.5: 1.1}[alpha] * pot.value.item() + 1e-3


@pytest.mark.parametrize(("alpha", "worse"), [(0.1, 0.0), (0.5, 0.02), (0.9, 0.1), (1.0, 0.25)])
def test_better_than_pot_on_average(alpha: float, worse: float) -> None:
    case = fgw_cases.speech_like(200, (6, 14), (3, 6), width=4, signal=1.0, seed=5)
    ours = fused_gromov_wasserstein(*case.dense(), alpha=alpha, **TIGHT).value
    pot = fused_gromov_wasserstein(*case.dense(), alpha=alpha, backend="pot", outer_iterations=1000).value
    assert ours.mean() <= pot.mean() + 1e-5
    assert (ours > 1.01 * pot).float().mean() <= worse


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rho_a=st.sampled_from([0.05, 0.5, 5.0, math.inf]),
    rho_b=st.sampled_from([0.1, 1.0, math.inf]),
)
def test_relaxed_marginals_against_pot(seed: int, rho_a: float, rho_b: float) -> None:
    case = fgw_cases.speech_like(1, (4, 9), (2, 5), seed=seed)
    ours = fused_gromov_wasserstein(*case.dense(), alpha=0.0, rho_acoustic=rho_a, rho_linguistic=rho_b, **TIGHT)
    cost, _, _ = case.numpy(0)
    t, u = cost.shape
    a, b = np.full(t, 1 / t), np.full(u, 1 / u)
    reg = tuple(1e6 if math.isinf(r) else r for r in (rho_a, rho_b))
    pot = ot.unbalanced.mm_unbalanced(a, b, cost, reg_m=reg, numItermax=3000, stopThr=1e-14)

    def objective(plan: np.ndarray) -> float:
        total = (plan * cost).sum()
        for rho, marginal, weights in ((rho_a, plan.sum(1), a), (rho_b, plan.sum(0), b)):
            if math.isfinite(rho):
                kept = marginal > 0
                total += rho * ((marginal * np.log(np.where(kept, marginal, 1) / weights)).sum() - marginal.sum() + 1)
        return total

    plan = ours.plan[0, :t, :u].double().numpy()
    assert objective(plan) <= objective(pot) + 2e-3


@pytest.mark.parametrize(("backend", "problems"), [("torch", 60), ("numba", 400)])
@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_a_plan_that_rests_is_stationary_too(backend: str, problems: int, alpha: float) -> None:
    """Without the third condition of stopping, gaps of 0.8 % and 2 % remain in this batch."""
    case = fgw_cases.speech_like(problems, (6, 14), (3, 6), width=4, signal=1.0, seed=5)
    options = {**TIGHT, "tolerance": 1e-3, "alpha": alpha, "backend": backend}
    result = fused_gromov_wasserstein(*case.dense(), **options)
    assert result.converged.float().mean() > 0.99
    assert result.gap[result.converged].max() <= 2e-3


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("side", ["rho_acoustic", "rho_linguistic"])
def test_the_gap_is_a_certificate_where_a_marginal_is_free(backend: str, side: str) -> None:
    cost = torch.rand(50, 12, 6, generator=torch.Generator().manual_seed(0))
    lengths = torch.full((50,), 12), torch.full((50,), 6)
    edges = torch.zeros(50, 12, 12), torch.zeros(50, 6, 6)
    optimum = cost.amin(1).mean(1) if side == "rho_acoustic" else cost.amin(2).mean(1)
    for steps in (1, 2, 10, 100):
        options = {side: 0.0, "alpha": 0.0, "outer_iterations": steps, "tolerance": 1e-4, "backend": backend}
        result = fused_gromov_wasserstein(cost, *edges, *lengths, **options)
        assert (result.value - result.gap <= optimum + 1e-6).all()
        assert (result.value >= optimum - 1e-6).all()


@pytest.mark.parametrize("rho", [(0.05, math.inf), (math.inf, 0.2), (0.0, math.inf), (0.5, 0.3)], ids=str)
def test_relaxed_graphs_against_pot(rho: tuple[float, float]) -> None:
    case = fgw_cases.speech_like(8, (6, 14), (3, 6), width=8, seed=3)
    options = {"alpha": 0.3, "rho_acoustic": rho[0], "rho_linguistic": rho[1]}
    ours = fused_gromov_wasserstein(*case.dense(), **options, **TIGHT)
    pot = fused_gromov_wasserstein(*case.dense(), **options, backend="pot")
    objectives = []
    for result in (ours, pot):
        total = result.value.clone()
        for strength, marginal, lengths in (
            (rho[0], result.plan.sum(2), case.acoustic_lengths),
            (rho[1], result.plan.sum(1), case.linguistic_lengths),
        ):
            weights = (torch.arange(marginal.shape[1]) < lengths[:, None]) / lengths[:, None]
            if math.isfinite(strength):
                total += strength * (torch.special.xlogy(marginal, marginal / weights.clamp(min=1e-30)) - marginal).sum(
                    1
                )
        objectives.append(total)
    difference = objectives[0] - objectives[1]
    assert difference.mean() <= 1e-4 and difference.median().abs() <= 2e-3
    assert ours.converged.all() and ours.gap.max() <= 1e-3


def test_mirror_descent_is_entropic_transport() -> None:
    case = fgw_cases.speech_like(4, (6, 10), (2, 5))
    result = fused_gromov_wasserstein(
        *case.dense(), alpha=0.0, method="mirror", epsilon=0.1, epsilon_relative=False, tolerance=1e-6
    )
    for i in range(4):
        cost, _, _ = case.numpy(i)
        t, u = cost.shape
        plan = reference.sinkhorn(cost, np.full(t, 1 / t), np.full(u, 1 / u), 0.1)
        np.testing.assert_allclose(result.plan[i, :t, :u].numpy(), plan, atol=1e-5)


def test_order_prior_is_su_and_hua() -> None:
    t, u, lambda1, lambda2, delta = 9, 4, 0.7, 0.1, 1.0
    g = torch.Generator().manual_seed(1)
    cost = torch.rand(1, t, u, generator=g)
    kernel = np.zeros((t, u))
    for i in range(1, t + 1):
        for j in range(1, u + 1):
            d = abs(i / t - j / u) / math.sqrt(1 / t**2 + 1 / u**2)
            gauss = math.exp(-(d**2) / (2 * delta**2)) / (delta * math.sqrt(2 * math.pi))
            moment = lambda1 / ((i / t - j / u) ** 2 + 1)
            kernel[i - 1, j - 1] = gauss * math.exp((moment - cost[0, i - 1, j - 1].item()) / lambda2)
    plan = reference.sinkhorn(-lambda2 * np.log(kernel), np.full(t, 1 / t), np.full(u, 1 / u), lambda2)
    lengths = torch.tensor([t]), torch.tensor([u])
    result = fused_gromov_wasserstein(
        cost,
        torch.zeros(1, t, t),
        torch.zeros(1, u, u),
        *lengths,
        alpha=0.0,
        method="mirror",
        epsilon=lambda2,
        epsilon_relative=False,
        tolerance=1e-6,
        prior=order_prior(*lengths, lambda1=lambda1, lambda2=lambda2, delta=delta),
    )
    np.testing.assert_allclose(result.plan[0].numpy(), plan, atol=1e-5)
    assert result.value.item() == pytest.approx((plan * cost[0].numpy()).sum(), abs=1e-5)  # without the prior


def test_the_gap_of_pots_plan_is_the_linearised_problems() -> None:
    """⟨∇E(γ), γ⟩ less its minimum over all couplings, by POT's exact solver; after one step it can be large."""
    case, gaps = fgw_cases.speech_like(6, (9, 14), (3, 6), width=6, seed=1), []
    arguments = case.dense()
    result = fused_gromov_wasserstein(*arguments, alpha=0.7, outer_iterations=1, backend="pot")
    cost, acoustic, linguistic = (each.double().numpy() for each in arguments[:3])
    for i, (t, u) in enumerate(zip(case.acoustic_lengths.tolist(), case.linguistic_lengths.tolist(), strict=True)):
        plan, a, b = result.plan[i, :t, :u].double().numpy(), acoustic[i, :t, :t], linguistic[i, :u, :u]
        both = (a**2).sum(1)[:, None] / t + (b**2).sum(1)[None] / u - 2 * a @ plan @ b
        slope = 0.3 * cost[i, :t, :u] + 2 * 0.7 * both
        best = ot.emd(np.full(t, 1 / t), np.full(u, 1 / u), slope)
        gaps.append((slope * (plan - best)).sum())
    assert max(gaps) > 1e-3
    np.testing.assert_allclose(result.gap.numpy(), gaps, rtol=1e-3, atol=1e-6)
