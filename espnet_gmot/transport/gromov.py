"""Fused Gromov-Wasserstein over padded batches: the public function, its result and its gradient."""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from espnet_gmot.transport import proximal
from espnet_gmot.transport.edges import Edges, as_edges
from espnet_gmot.transport.implicit import differentiable
from espnet_gmot.transport.problem import Options, Problem, make_problem

__all__ = ["FGWResult", "fused_gromov_wasserstein"]

_warned = False


@dataclass(frozen=True)
class FGWResult:
    """A solved batch.

    Attributes:
        value: (B,) α·quadratic + (1 − α)·linear; without the prior and without penalties.
        linear: (B,) ⟨cost, plan⟩, the Wasserstein part.
        quadratic: (B,) Σ (A[i,k] − L[j,l])²·plan[i,j]·plan[k,l], the Gromov-Wasserstein part.
        plan: (B, T, U) the coupling, exactly 0 on padding and where a weight is 0; detached unless asked otherwise.
        marginal_error: (B,) L1 error of the balanced marginals before rounding to feasibility (after it from POT).
        gap: (B,) duality gap of the problem linearised at the plan, ≥ 0 and 0 at a stationary plan; units of the cost.
        iterations: (B,) outer steps taken.
        converged: (B,) bool, the stopping test was met.
    """

    value: Tensor
    linear: Tensor
    quadratic: Tensor
    plan: Tensor
    marginal_error: Tensor
    gap: Tensor
    iterations: Tensor
    converged: Tensor


class _Envelope(torch.autograd.Function):
    """Values at a fixed plan. By the envelope theorem their gradient is the partial one, the plan held still."""

    @staticmethod
    def forward(ctx, problem: Problem, solution: proximal.Solution, cost: Tensor, *leaves: Tensor):
        """The values, (B,) each: value, linear, quadratic."""
        ctx.problem = problem
        ctx.save_for_backward(solution.plan)  # so that a plan changed in place meanwhile is an error
        ctx.types = cost.dtype, [leaf.dtype for leaf in leaves]
        alpha = problem.options.alpha
        value = alpha * solution.quadratic + (1.0 - alpha) * solution.linear
        return value, solution.linear.clone(), solution.quadratic.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, by_value: Tensor, by_linear: Tensor, by_quadratic: Tensor):
        """Partial gradients to the cost (B, T, U) and to the leaves of both edges."""
        problem, (plan,), alpha = ctx.problem, ctx.saved_tensors, ctx.problem.options.alpha
        by_linear = by_linear + (1.0 - alpha) * by_value
        by_quadratic = by_quadratic + alpha * by_value
        cost = by_linear[:, None, None] * plan if ctx.needs_input_grad[2] else None
        leaves: list[Tensor | None] = []
        with torch.autocast(plan.device.type, enabled=False):
            for edges, other, view in (
                (problem.acoustic, problem.linguistic, plan),
                (problem.linguistic, problem.acoustic, plan.mT),
            ):
                count, start = len(edges.tensors), 3 + len(leaves)
                if any(ctx.needs_input_grad[start : start + count]):
                    leaves += edges.pullback(by_quadratic, view.sum(2), view, other.apply(view.mT).mT)
                else:
                    leaves += [None] * count
        types = ctx.types
        leaves = [None if g is None else g.to(kind) for g, kind in zip(leaves, types[1], strict=True)]
        return None, None, None if cost is None else cost.to(types[0]), *leaves


def fused_gromov_wasserstein(
    cost: Tensor,
    acoustic_edges: Tensor | Edges,
    linguistic_edges: Tensor | Edges,
    acoustic_lengths: Tensor,
    linguistic_lengths: Tensor,
    *,
    alpha: float = 0.5,
    epsilon: float = 0.05,
    epsilon_relative: bool = True,
    acoustic_weights: Tensor | None = None,
    linguistic_weights: Tensor | None = None,
    rho_acoustic: float = math.inf,
    rho_linguistic: float = math.inf,
    prior: Tensor | None = None,
    outer_iterations: int = 100,
    inner_iterations: int = 100,
    tolerance: float = 3e-3,
    method: str = "proximal",
    annealing: float = 1.0,
    initial_plan: Tensor | None = None,
    plan_gradient: str = "detached",
    backend: str = "auto",
) -> FGWResult:
    """Fused Gromov-Wasserstein distance of pairs of padded sequences [1]_, square loss.

    Minimises over couplings γ ≥ 0 of acoustic weights a and linguistic weights b

        (1 − α)⟨cost, γ⟩ + ⟨prior, γ⟩ + α·Σ (A[i,k] − L[j,l])² γ[i,j] γ[k,l] + ρ_a·KL(γ1|a) + ρ_b·KL(γᵀ1|b)

    by a proximal point method whose steps are Sinkhorn problems [2]_, [3]_. ρ = inf makes a marginal exact: the
    plan is then rounded to it [4]_, so that the value is that of a feasible plan. α = 0 is optimal transport, α = 1
    Gromov-Wasserstein. Samples are independent of their batch. Works in float32 (float64 for float64 input), also
    under autocast.

    Args:
        cost: (B, T, U) node cost M; its padding is not read.
        acoustic_edges: (B, T, T) symmetric A, finite also on padding, or `Edges`.
        linguistic_edges: (B, U, U) symmetric L likewise.
        acoustic_lengths: (B,) valid frames; 0 gives value 0 and an empty plan.
        linguistic_lengths: (B,) valid tokens likewise.
        alpha: share of the Gromov-Wasserstein part, in [0, 1].
        epsilon: strength of the entropic (proximal) term: the step is the longer the smaller it is.
        epsilon_relative: ε counts in the sample's mean effective cost; False: in units of the cost.
        acoustic_weights: (B, T) non-negative node weights, normalised here; uniform by default.
        linguistic_weights: (B, U) likewise.
        rho_acoustic: KL strength on the frames' marginal in units of the cost, 0 to inf (exact).
        rho_linguistic: likewise on the tokens' marginal.
        prior: (B, T, U) additive linear cost that steers the plan and is left out of the value.
        outer_iterations: largest number of proximal steps.
        inner_iterations: Sinkhorn iterations within each.
        tolerance: a sample stops when its plan moved by no more (L1), misses its marginals by no more and, by the
            proximal method, its gap is no more in units of its mean effective cost.
        method: "proximal" (limit: the unregularised problem) or "mirror" (limit: the entropic problem at ε).
        annealing: factor ≥ 1 on ε at the first step, gone geometrically by half of the steps.
        initial_plan: (B, T, U) plan to start from; the product of the weights by default.
        plan_gradient: "detached", or "implicit": the plan carries a gradient to the cost and to both edges, by implicit
            differentiation of the entropic problem at its solution; needs method="mirror" and a small tolerance.
        backend: "torch" (any device), "numba" (CPU, one sample per thread), "pot" (POT's conditional gradient with an
            exact linear solver, one sample at a time: a reference) or "auto": numba where it can, else torch.

    Returns:
        An `FGWResult`. value, linear and quadratic carry the gradient at the fixed plan to the cost and to both edges;
        for value without prior and penalties that is its whole gradient, by the envelope theorem.

    Raises:
        ValueError: an argument's shape or range is wrong; the message names it, what it is and what was expected.

    References:
        .. [1] Vayer et al., "Optimal transport for structured data with application on graphs", ICML 2019.
        .. [2] Peyré, Cuturi and Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", ICML 2016.
        .. [3] Xu et al., "Gromov-Wasserstein learning for graph matching and node embedding", ICML 2019.
        .. [4] Altschuler, Weed and Rigollet, "Near-linear time approximation algorithms for optimal transport via
           Sinkhorn iteration", NeurIPS 2017.
    """
    options = Options(
        alpha=float(alpha),
        epsilon=float(epsilon),
        epsilon_relative=epsilon_relative,
        rho_acoustic=float(rho_acoustic),
        rho_linguistic=float(rho_linguistic),
        outer_iterations=int(outer_iterations),
        inner_iterations=int(inner_iterations),
        tolerance=float(tolerance),
        method=method,
        annealing=float(annealing),
    )
    _check_plan_gradient(plan_gradient, method, backend)
    acoustic = as_edges(acoustic_edges, "acoustic_edges")
    linguistic = as_edges(linguistic_edges, "linguistic_edges")
    with torch.autocast(cost.device.type, enabled=False):
        with torch.no_grad():
            problem = make_problem(
                cost,
                acoustic,
                linguistic,
                acoustic_lengths,
                linguistic_lengths,
                acoustic_weights,
                linguistic_weights,
                prior,
                initial_plan,
                options,
            )
            solution = _backend(backend, problem)(problem)
        leaves = acoustic.tensors + linguistic.tensors
        value, linear, quadratic = _Envelope.apply(problem, solution, cost, *leaves)
        plan = solution.plan
        if plan_gradient == "implicit":
            plan = differentiable(problem, plan, cost, acoustic, linguistic)
    _warn(solution.converged)
    return FGWResult(
        value=value,
        linear=linear,
        quadratic=quadratic,
        plan=plan,
        marginal_error=solution.marginal_error,
        gap=solution.gap,
        iterations=solution.iterations,
        converged=solution.converged,
    )


def _check_plan_gradient(plan_gradient: str, method: str, backend: str) -> None:
    """Only the entropic plan has a gradient."""
    if plan_gradient not in ("detached", "implicit"):
        raise ValueError(f"plan_gradient is {plan_gradient!r}; expected 'detached' or 'implicit'")
    if plan_gradient == "implicit" and (method != "mirror" or backend == "pot"):
        raise ValueError(
            f"plan_gradient is 'implicit' with method {method!r} and backend {backend!r}; expected method 'mirror' and "
            "not 'pot': the plan of a linear program does not move smoothly, that of the entropic problem does"
        )


def _backend(name: str, problem: Problem) -> Callable[[Problem], proximal.Solution]:
    """The solving function behind a backend's name."""
    if name == "torch" or (name == "auto" and (problem.cost.device.type != "cpu" or not _has_numba())):
        return proximal.solve
    if name in ("auto", "numba"):
        if not _has_numba():
            raise ValueError(
                "backend is 'numba', which is not installed: pip install 'espnet_gmot[fast]', or take 'auto' or 'torch'"
            )
        from espnet_gmot.transport.compiled import backend as compiled

        if compiled.supports(problem):
            return compiled.solve
        if name == "auto":
            return proximal.solve
        raise ValueError(
            f"backend is 'numba', which takes float32 on the CPU and edges that are dense or all factored; "
            f"the cost is {problem.cost.dtype} on {problem.cost.device}: take 'auto' or 'torch'"
        )
    if name == "pot":
        if importlib.util.find_spec("ot") is None:
            raise ValueError(
                "backend is 'pot', which is not installed: pip install 'espnet_gmot[pot]', or take 'auto' or 'torch'"
            )
        from espnet_gmot.transport import pot_backend

        return pot_backend.solve
    raise ValueError(f"backend is {name!r}; expected 'auto', 'torch', 'numba' or 'pot'")


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def _warn(converged: Tensor) -> None:
    """Once per process, when over 1 % of a batch's samples ran out of steps (not asked of a GPU, which would wait)."""
    global _warned
    if _warned or converged.device.type != "cpu" or not converged.numel():
        return
    missing = int((~converged).sum())
    if missing > 0.01 * converged.numel():
        _warned = True
        warnings.warn(
            f"{missing} of {converged.numel()} transport problems met their iteration limit before the tolerance; "
            "raise outer_iterations or inner_iterations, or epsilon, or accept a larger tolerance",
            RuntimeWarning,
            stacklevel=3,
        )
