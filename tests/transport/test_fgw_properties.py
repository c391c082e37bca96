"""Known answers, invariances, special cases and degenerate input."""

import itertools
import math
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from espnet_gmot.transport import (
    CosineEdges,
    DenseEdges,
    SumEdges,
    cosine_cost,
    cosine_edges,
    diagonal_prior,
    fused_gromov_wasserstein,
    gromov,
    order_prior,
    temporal_edges,
)
from tests.transport import fgw_cases

KERNELS = ["torch", "numba"]


@pytest.mark.parametrize("backend", KERNELS)
def test_padding_is_not_read(backend: str) -> None:
    """More padding, NaN in the cost's: the same value and gradient."""
    case = fgw_cases.speech_like(4)
    results = []
    for extra in (0, 7):
        h = torch.nn.functional.pad(case.acoustic, (0, 0, 0, extra)).requires_grad_()
        z = torch.nn.functional.pad(case.linguistic, (0, 0, 0, extra))
        cost = cosine_cost(h, z)
        inside = torch.arange(h.shape[1])[None, :, None] < case.acoustic_lengths[:, None, None]
        cost = torch.where(inside, cost, math.nan) if extra else cost
        args = cost, cosine_edges(h), cosine_edges(z), case.acoustic_lengths, case.linguistic_lengths
        result = fused_gromov_wasserstein(*args, backend=backend)
        result.value.sum().backward()
        results.append((result, h.grad))
    (one, grad_one), (two, grad_two) = results
    torch.testing.assert_close(one.value, two.value, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.plan, two.plan[:, : one.plan.shape[1], : one.plan.shape[2]], atol=1e-5, rtol=0)
    torch.testing.assert_close(grad_one, grad_two[:, : one.plan.shape[1]], atol=1e-5, rtol=1e-4)
    assert two.plan[:, one.plan.shape[1] :].abs().max() == 0


@pytest.mark.parametrize("backend", KERNELS)
def test_a_sample_does_not_know_its_batch(backend: str) -> None:
    case = fgw_cases.speech_like(7)
    whole = fused_gromov_wasserstein(*case.dense(), backend=backend)
    for i in range(7):
        alone = fused_gromov_wasserstein(*(x[i : i + 1] for x in case.dense()), backend=backend)
        if backend == "numba":
            assert torch.equal(alone.plan[0], whole.plan[i]) and torch.equal(alone.value[0], whole.value[i])
        else:
            torch.testing.assert_close(alone.value[0], whole.value[i], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"tolerance": 0.0, "outer_iterations": 15, "inner_iterations": 40},
        {"method": "mirror"},
        {"rho_acoustic": 0.2},
        {"rho_acoustic": 0.5, "rho_linguistic": 0.3},
        {"rho_acoustic": 0.0},
        {"rho_linguistic": 0.0},
        {"annealing": 8.0},
        {"epsilon": 0.03, "epsilon_relative": False},
    ],
    ids=str,
)
def test_torch_and_numba_agree(options: dict) -> None:
    case = fgw_cases.speech_like(8)
    one, two = (fused_gromov_wasserstein(*case.dense(), backend=b, **options) for b in KERNELS)
    torch.testing.assert_close(one.value, two.value, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.quadratic, two.quadratic, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.gap, two.gap, atol=2e-5, rtol=0)
    torch.testing.assert_close(one.marginal_error, two.marginal_error, atol=2e-5, rtol=0)
    assert torch.equal(one.iterations, two.iterations) and torch.equal(one.converged, two.converged)


def test_isometric_graphs_are_at_distance_zero_and_matched() -> None:
    g = torch.Generator().manual_seed(2)
    points = torch.randn(1, 10, 4, generator=g)
    order = torch.randperm(10, generator=g)
    a, b = torch.cdist(points, points), torch.cdist(points[:, order], points[:, order])
    cost = 0.05 * torch.cdist(points, points[:, order])  # a hint, since Gromov-Wasserstein alone has local minima
    lengths = torch.tensor([10]), torch.tensor([10])
    result = fused_gromov_wasserstein(cost, a, b, *lengths, alpha=0.9, tolerance=1e-5, outer_iterations=300)
    assert result.quadratic.item() < 1e-4
    assert torch.equal(result.plan[0].argmax(0), order)


def test_symmetry_permutation_and_scaling() -> None:
    case = fgw_cases.speech_like(1, (20, 20), (6, 6))
    cost, a, b, t, u = case.dense()
    value = fused_gromov_wasserstein(cost, a, b, t, u).value
    swapped = fused_gromov_wasserstein(cost.mT, b, a, u, t).value
    torch.testing.assert_close(swapped, value, atol=2e-3, rtol=0)
    order = torch.randperm(20)
    shuffled = fused_gromov_wasserstein(cost[:, order], a[:, order][:, :, order], b, t, u)
    torch.testing.assert_close(shuffled.value, value, atol=1e-5, rtol=0)
    for factor in (1e-4, 1e3):
        scaled = fused_gromov_wasserstein(factor**2 * cost, factor * a, factor * b, t, u).value
        torch.testing.assert_close(scaled, factor**2 * value, atol=0, rtol=1e-4)


def test_reversal_is_a_tie_that_only_the_prior_breaks() -> None:
    t, u = torch.tensor([12]), torch.tensor([6])
    edges = temporal_edges(t), temporal_edges(u)
    cost = torch.zeros(1, 12, 6)
    kwargs = {"alpha": 0.5, "tolerance": 1e-5, "outer_iterations": 400}
    blind = fused_gromov_wasserstein(cost, *edges, t, u, **kwargs).plan[0]
    torch.testing.assert_close(blind, blind.flip(0, 1), atol=1e-4, rtol=0)
    for prior in (order_prior(t, u, lambda1=0.5), diagonal_prior(t, u, width=0.05)):
        plan = fused_gromov_wasserstein(cost, *edges, t, u, prior=prior, **kwargs).plan[0]
        assert torch.equal(plan.argmax(1), torch.arange(12) // 2)


@pytest.mark.parametrize("make", [partial(order_prior, lambda2=0.0), partial(diagonal_prior, width=0.0)])
def test_a_prior_counts_the_mass_of_the_frames_that_have_passed(make: Callable[..., torch.Tensor]) -> None:
    """Frames without mass take no time: their neighbours' rows stay, whatever silence lies between them."""
    t, u = torch.tensor([4]), torch.tensor([3])
    torch.testing.assert_close(make(t, u, acoustic_weights=torch.full((1, 4), 0.3)), make(t, u))
    spoken = [2, 3, 7, 9]
    weights = torch.zeros(1, 12)
    weights[0, spoken] = torch.tensor([1.0, 2.0, 1.0, 2.0])
    weights[0, 11] = math.nan  # padding
    silent = make(torch.tensor([11]), u, 12, acoustic_weights=weights)
    dense = make(t, u, acoustic_weights=weights[:, spoken])
    torch.testing.assert_close(silent[:, spoken], dense)
    torch.testing.assert_close(make(t, u, acoustic_weights=1e-40 * weights[:, spoken]), dense, rtol=1e-3, atol=1e-6)
    assert (silent[:, 4:7] == silent[:, [4]]).all()  # all that lie between are at one place
    assert not silent[:, 11].any()
    assert make(t, u, acoustic_weights=torch.zeros(1, 4)).isfinite().all()
    with pytest.raises(ValueError, match=r"acoustic_weights has shape \(1, 1\); expected \(1, 4\)"):
        make(t, u, acoustic_weights=torch.ones(1, 1))


def test_only_a_prior_that_counts_the_weights_steps_over_silence() -> None:
    """Frames may stay unmatched, so the prior alone decides; a frame of silence has a little mass, as CTC gives it."""
    t, u = torch.tensor([30]), torch.tensor([3])
    weights = torch.full((1, 30), 0.01)
    spoken = [20, 21, 23, 24, 27, 28]  # two frames a token after a long silence
    weights[0, spoken] = 1.0
    edges = temporal_edges(t), temporal_edges(u)
    plans = [
        fused_gromov_wasserstein(
            torch.zeros(1, 30, 3), *edges, t, u, acoustic_weights=weights, prior=prior, alpha=0.0, rho_acoustic=0.1
        ).plan[0]
        for prior in (order_prior(t, u, acoustic_weights=weights), order_prior(t, u))
    ]
    right = [sum(float(plan[frame, place // 2]) for place, frame in enumerate(spoken)) for plan in plans]
    assert right[0] > 0.9 and right[1] < 0.7


def test_energy_never_rises_over_outer_steps() -> None:
    case = fgw_cases.speech_like(6, seed=4)
    values = [
        fused_gromov_wasserstein(
            *case.dense(), outer_iterations=n, inner_iterations=500, tolerance=0.0, epsilon=0.3
        ).value
        for n in range(1, 14)
    ]
    for earlier, later in itertools.pairwise(values):
        assert (later <= earlier + 1e-5).all()


def test_presets_that_are_special_cases() -> None:
    case = fgw_cases.speech_like(4)
    cost, a, b, t, u = case.dense()
    plain = fused_gromov_wasserstein(cost, a, b, t, u, alpha=0.0)
    other_edges = fused_gromov_wasserstein(cost, 3 * a, torch.zeros_like(b), t, u, alpha=0.0)
    torch.testing.assert_close(plain.value, other_edges.value)  # α = 0: no edges
    torch.testing.assert_close(plain.value, plain.linear)
    no_prior = fused_gromov_wasserstein(cost, a, b, t, u, prior=torch.zeros_like(cost))
    torch.testing.assert_close(no_prior.value, fused_gromov_wasserstein(cost, a, b, t, u).value)
    nearly = fused_gromov_wasserstein(cost, a, b, t, u, alpha=0.0, rho_acoustic=1e4)
    torch.testing.assert_close(nearly.value, plain.value, atol=2e-3, rtol=0)  # ρ → ∞: balanced
    free = fused_gromov_wasserstein(cost, a, b, t, u, alpha=0.0, rho_acoustic=0.0, tolerance=1e-6)
    inside = torch.arange(cost.shape[1])[None, :, None] < t[:, None, None]
    nearest = torch.where(inside, cost, math.inf).amin(1)
    mean = torch.stack([nearest[i, : u[i]].mean() for i in range(4)])
    torch.testing.assert_close(free.value, mean, atol=1e-3, rtol=0)  # ρ = 0: every token takes its nearest frame


@pytest.mark.parametrize("backend", KERNELS)
def test_one_exact_side_is_exact(backend: str) -> None:
    case = fgw_cases.speech_like(4)
    result = fused_gromov_wasserstein(*case.dense(), rho_acoustic=0.05, backend=backend)
    for i, u in enumerate(case.linguistic_lengths):
        torch.testing.assert_close(result.plan[i].sum(0)[:u], torch.full((int(u),), 1.0 / u))


@pytest.mark.parametrize("backend", KERNELS)
def test_nodes_of_no_weight_get_no_mass(backend: str) -> None:
    case = fgw_cases.speech_like(3)
    weights = torch.rand(3, case.acoustic.shape[1])
    weights[:, 2] = 0.0
    result = fused_gromov_wasserstein(*case.dense(), acoustic_weights=100 * weights, backend=backend)
    assert result.plan[:, 2].abs().max() == 0
    valid = weights * (torch.arange(weights.shape[1]) < case.acoustic_lengths[:, None])
    torch.testing.assert_close(result.plan.sum(2), valid / valid.sum(1, keepdim=True), atol=1e-6, rtol=0)


def test_warm_start_saves_steps_and_keeps_the_basin() -> None:
    case = fgw_cases.speech_like(12, (30, 60), (6, 12), signal=0.4)
    cold = fused_gromov_wasserstein(*case.dense(), tolerance=1e-5, outer_iterations=400)
    short = {"outer_iterations": 3, "tolerance": 0.0}
    again = fused_gromov_wasserstein(*case.dense(), **short, initial_plan=cold.plan)
    fresh = fused_gromov_wasserstein(*case.dense(), **short)
    assert (again.value - cold.value).abs().max() < 2e-3
    assert (again.value - cold.value).mean() < 0.4 * (fresh.value - cold.value).mean()


@pytest.mark.parametrize("backend", [*KERNELS, "pot"])
@pytest.mark.parametrize(("frames", "tokens"), [(1, 1), (1, 5), (5, 1), (3, 6), (0, 4), (4, 0)], ids=lambda n: str(n))
@pytest.mark.parametrize("kind", ["random", "identical", "zero"])
def test_degenerate_input_is_finite(backend: str, frames: int, tokens: int, kind: str) -> None:
    shape_h, shape_z = (2, max(frames, 2), 4), (2, max(tokens, 2), 4)
    make = {"random": torch.randn, "identical": torch.ones, "zero": torch.zeros}[kind]
    h, z = make(shape_h).requires_grad_(), make(shape_z).requires_grad_()
    lengths = torch.tensor([frames, 2]), torch.tensor([tokens, 2])
    result = fused_gromov_wasserstein(cosine_cost(h, z), CosineEdges(h), cosine_edges(z), *lengths, backend=backend)
    result.value.sum().backward()
    for tensor in (result.value, result.plan, result.gap, h.grad, z.grad):
        assert tensor.isfinite().all()
    assert result.plan[0].sum().item() == pytest.approx(float(frames > 0 and tokens > 0), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.5}, r"alpha is 1.5; expected a number in \[0, 1\]"),
        ({"epsilon": 0.0}, "epsilon is 0.0; expected a positive number"),
        ({"rho_acoustic": -1.0}, "rho_acoustic is -1.0"),
        ({"method": "sinkhorn"}, "method is 'sinkhorn'; expected 'proximal' or 'mirror'"),
        ({"backend": "cuda"}, "backend is 'cuda'"),
        ({"acoustic_edges": torch.zeros(2, 5, 4)}, r"acoustic_edges has shape \(2, 5, 4\); expected \(B, N, N\)"),
        ({"linguistic_edges": torch.zeros(2, 4, 4)}, r"linguistic_edges have .* \(2, 4\); expected \(2, 3\)"),
        ({"acoustic_lengths": torch.ones(3)}, r"acoustic_lengths has shape \(3,\); expected \(2,\)"),
        ({"prior": torch.zeros(2, 5, 4)}, r"prior has shape \(2, 5, 4\); expected \(2, 5, 3\)"),
        ({"cost": np.zeros((2, 5, 3))}, "cost is a ndarray; expected a tensor"),
        (
            {"acoustic_edges": np.zeros((2, 5, 5))},
            r"acoustic_edges is a ndarray; expected a \(B, N, N\) tensor or Edges",
        ),
        ({"linguistic_lengths": [3, 3]}, "linguistic_lengths is a list; expected a tensor"),
        ({"acoustic_weights": np.ones((2, 5))}, "acoustic_weights is a ndarray; expected a tensor"),
        ({"prior": np.ones((2, 5, 3))}, "prior is a ndarray; expected a tensor"),
        ({"initial_plan": "product"}, "initial_plan is a str; expected a tensor"),
        ({"initial_plan": torch.zeros(2, 3, 5)}, r"initial_plan has shape \(2, 3, 5\); expected \(2, 5, 3\)"),
        ({"acoustic_lengths": torch.ones(2)}, "acoustic_lengths is torch.float32; expected whole numbers"),
        ({"acoustic_lengths": torch.tensor([6, 5])}, "acoustic_lengths reaches from 5 to 6; expected 0 to 5"),
        ({"linguistic_lengths": torch.tensor([-1, 3])}, "linguistic_lengths reaches from -1 to 3; expected 0 to 3"),
        ({"acoustic_weights": -torch.ones(2, 5)}, "acoustic_weights holds -1; expected non-negative"),
        ({"cost": torch.zeros(5, 3)}, r"cost has shape \(5, 3\); expected \(B, T, U\)"),
        ({"cost": torch.zeros(2, 0, 3)}, r"cost has shape \(2, 0, 3\); expected at least one sample, frame and token"),
        ({"linguistic_weights": torch.ones(2, 5)}, r"linguistic_weights has shape \(2, 5\); expected \(2, 3\)"),
    ],
    ids=lambda x: str(next(iter(x))) if isinstance(x, dict) else "",
)
def test_errors_name_the_argument(change: dict, message: str) -> None:
    arguments = {
        "cost": torch.zeros(2, 5, 3),
        "acoustic_edges": torch.zeros(2, 5, 5),
        "linguistic_edges": torch.zeros(2, 3, 3),
        "acoustic_lengths": torch.tensor([5, 4]),
        "linguistic_lengths": torch.tensor([3, 3]),
    }
    with pytest.raises(ValueError, match=message):
        fused_gromov_wasserstein(**{**arguments, **change})


@pytest.mark.parametrize("side", ["acoustic", "linguistic"])
@pytest.mark.parametrize(
    "wrap", [lambda a: a, DenseEdges, lambda a: SumEdges([(0.5, CosineEdges(a)), (1.0, DenseEdges(a))])]
)
def test_asymmetric_edges_are_refused(side: str, wrap: Callable) -> None:
    """POT reads them otherwise: a value 18 % off came with a gap that said all was well."""
    case = fgw_cases.speech_like(3, (20, 30), (6, 9))
    arguments = dict(zip(("cost", "acoustic_edges", "linguistic_edges"), case.dense()[:3], strict=True))
    name, lengths = (
        f"{side}_edges",
        {"acoustic_lengths": case.acoustic_lengths, "linguistic_lengths": case.linguistic_lengths},
    )
    one = arguments[name].clone()
    one[1, 0, 3] += 1.0  # a single pair
    with pytest.raises(ValueError, match=rf"{name} is not symmetric: sample 1 .* take \(A \+ A.mT\) / 2"):
        fused_gromov_wasserstein(**{**arguments, name: wrap(one)}, **lengths)
    fused_gromov_wasserstein(**{**arguments, name: wrap((one + one.mT) / 2)}, **lengths)
    assert fused_gromov_wasserstein(**{**arguments, name: wrap(one)}, **lengths, alpha=0.0).value.isfinite().all()


def test_symmetry_is_asked_of_what_counts_alone_and_within_rounding() -> None:
    case = fgw_cases.speech_like(3, (20, 30), (6, 9))
    cost, acoustic, linguistic, *lengths = case.dense()
    clean = fused_gromov_wasserstein(cost, acoustic, linguistic, *lengths)
    padded = acoustic.clone()
    for rows, frames in zip(padded, case.acoustic_lengths.tolist(), strict=True):
        rows[frames:] = 7.0
    torch.testing.assert_close(fused_gromov_wasserstein(cost, padded, linguistic, *lengths).value, clean.value)
    noisy = acoustic * (1 + 1e-5 * torch.randn(acoustic.shape))
    torch.testing.assert_close(
        fused_gromov_wasserstein(cost, noisy, linguistic, *lengths).value, clean.value, atol=1e-4, rtol=0
    )
    half = fused_gromov_wasserstein(
        cost, acoustic.half() * (1 + 2e-3 * torch.randn(acoustic.shape)).half(), linguistic, *lengths
    )
    torch.testing.assert_close(half.value, clean.value, atol=2e-2, rtol=0)


def test_checks_draw_no_random_number() -> None:
    state = torch.get_rng_state()
    fused_gromov_wasserstein(*fgw_cases.speech_like(2).dense())
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_and_padding_of_the_other_sign_are_not_read() -> None:
    case = fgw_cases.speech_like(3)
    weights = torch.ones(3, case.acoustic.shape[1])
    weights[torch.arange(weights.shape[1]) >= case.acoustic_lengths[:, None]] = -1.0
    given = fused_gromov_wasserstein(*case.dense(), acoustic_weights=weights)
    assert torch.equal(given.value, fused_gromov_wasserstein(*case.dense()).value)


def test_warns_once_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gromov, "_warned", False)
    case = fgw_cases.speech_like(4)
    with pytest.warns(RuntimeWarning, match="raise outer_iterations"):
        fused_gromov_wasserstein(*case.dense(), outer_iterations=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fused_gromov_wasserstein(*case.dense(), outer_iterations=1)


def test_how_asymmetric_edges_are_is_said() -> None:
    """‖Ax − Aᵀx‖ against the mean of both norms: 200 % where A = −Aᵀ."""
    one = torch.tensor([[[0.0, 1.0, -2.0], [-1.0, 0.0, 3.0], [2.0, -3.0, 0.0]]])
    lengths = torch.tensor([3])
    with pytest.raises(ValueError, match=r"acoustic_edges .* differs from its transpose by 2e\+02 %"):
        fused_gromov_wasserstein(torch.zeros(1, 3, 3), one, torch.zeros(1, 3, 3), lengths, lengths)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_plan_to_start_from_may_have_any_mass(backend: str) -> None:
    case = fgw_cases.speech_like(4, (12, 20), (4, 7), seed=2)
    few = {"outer_iterations": 1, "inner_iterations": 3, "tolerance": 0.0, "backend": backend}
    start = fused_gromov_wasserstein(*case.dense(), alpha=0.2, backend=backend).plan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one step is too few
        once, thousandfold = (
            fused_gromov_wasserstein(*case.dense(), alpha=0.9, **few, initial_plan=scale * start) for scale in (1, 1024)
        )
        anew = fused_gromov_wasserstein(*case.dense(), alpha=0.9, **few)
    assert torch.equal(once.plan, thousandfold.plan) and not torch.allclose(once.plan, anew.plan, atol=1e-4)


def test_a_second_derivative_is_refused() -> None:
    """The plan is held fixed: another backward pass through the gradient would be wrong without a word."""
    case = fgw_cases.speech_like(2, (8, 10), (3, 4))
    cost = case.dense()[0].clone().requires_grad_()
    value = fused_gromov_wasserstein(cost, *case.dense()[1:], backend="torch").value.sum()
    (gradient,) = torch.autograd.grad(value**2, cost, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
