"""Fused Gromov-Wasserstein over padded batches: the public function and its gradient."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import Unpack  # comes with torch; typing's own from Python 3.11 on

from espnet_gmot.transport import proximal
from espnet_gmot.transport.checks import check_tensors
from espnet_gmot.transport.edges import Edges, as_edges
from espnet_gmot.transport.implicit import differentiable
from espnet_gmot.transport.options import OptionKeywords, Options
from espnet_gmot.transport.problem import Problem, make_problem
from espnet_gmot.transport.solution import FGWResult, Solution

__all__ = ["fused_gromov_wasserstein"]

_warned = False


class _Envelope(torch.autograd.Function):
    """Values at a fixed plan; their gradient is the partial one, the plan held still."""

    @staticmethod
    def forward(
        ctx: Any, problem: Problem, solution: Solution, cost: Tensor, *leaves: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The values, (B,) each: value, linear, quadratic."""
        ctx.problem = problem
        ctx.set_materialize_grads(False)  # without a gradient to the quadratic part nothing goes through the edges
        ctx.save_for_backward(solution.plan)  # so that a plan changed in place meanwhile is an error
        ctx.types = cost.dtype, [leaf.dtype for leaf in leaves]
        alpha = problem.options.alpha
        value = alpha * solution.quadratic + (1.0 - alpha) * solution.linear
        return value, solution.linear.clone(), solution.quadratic.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by: Tensor | None) -> tuple[Tensor | None, ...]:
        """Partial gradients to the cost (B, T, U) and to the leaves of both edges."""
        problem, (plan,), alpha = ctx.problem, ctx.saved_tensors, ctx.problem.options.alpha
        by_value, by_linear, by_quadratic = by
        by_linear = _with_share(by_linear, 1.0 - alpha, by_value)
        by_quadratic = _with_share(by_quadratic, alpha, by_value)
        cost = None
        if ctx.needs_input_grad[2]:
            cost = torch.zeros_like(plan) if by_linear is None else by_linear[:, None, None] * plan
        leaves: list[Tensor | None] = []
        with torch.autocast(plan.device.type, enabled=False):
            for edges, other, view in (
                (problem.acoustic, problem.linguistic, plan),
                (problem.linguistic, problem.acoustic, plan.mT),
            ):
                count, start = len(edges.tensors), 3 + len(leaves)
                if not any(ctx.needs_input_grad[start : start + count]):
                    leaves += [None] * count
                elif by_quadratic is None:
                    leaves += [torch.zeros_like(leaf) for leaf in edges.tensors]
                else:
                    leaves += edges.pullback(by_quadratic, view.sum(2), view, other.apply(view.mT).mT)
        types = ctx.types
        leaves = [None if g is None else g.to(kind) for g, kind in zip(leaves, types[1], strict=True)]
        return None, None, None if cost is None else cost.to(types[0]), *leaves


def _with_share(by_part: Tensor | None, share: float, by_value: Tensor | None) -> Tensor | None:
    """The gradient to a part of the value: its own and its share of the value's; None where there is neither."""
    if share == 0.0 or by_value is None:
        return by_part
    return share * by_value if by_part is None else by_part + share * by_value


def fused_gromov_wasserstein(
    cost: Tensor,
    acoustic_edges: Tensor | Edges,
    linguistic_edges: Tensor | Edges,
    acoustic_lengths: Tensor,
    linguistic_lengths: Tensor,
    *,
    acoustic_weights: Tensor | None = None,
    linguistic_weights: Tensor | None = None,
    prior: Tensor | None = None,
    initial_plan: Tensor | None = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
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
        acoustic_weights: (B, T) non-negative node weights, normalised here; uniform by default.
        linguistic_weights: (B, U) likewise.
        prior: (B, T, U) additive linear cost that steers the plan and is left out of the value.
        initial_plan: (B, T, U) plan to start from; the product of the weights by default.
        options: α, ε and the rest of `Options`, which says what each is; its defaults where nothing is given.
        **keywords: the same, one by one: ``alpha=0.3`` for ``options=Options(alpha=0.3)``.

    Returns:
        An `FGWResult`. value, linear and quadratic carry the gradient at the fixed plan to the cost and to both edges.
        By the envelope theorem that is the whole gradient of what the plan minimises: of value, by the proximal method
        with exact marginals and no prior; else of value with the prior and the penalties, and by ``mirror`` with
        ε·KL(γ|abᵀ) (ε in units of the cost), whose own share of the gradient value lacks.

    Raises:
        ValueError: an argument's type, shape or range is wrong, or edges are not symmetric; the message names it, what
            it is and what was expected. Values are looked at on the CPU only: a GPU would have to wait, and lengths
            beyond the cost, or negative weights, are clamped there.
        TypeError: both options and keywords, or a keyword that is no field of `Options`.

    References:
        .. [1] Vayer et al., "Optimal transport for structured data with application on graphs", ICML 2019.
        .. [2] Peyré, Cuturi and Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", ICML 2016.
        .. [3] Xu et al., "Gromov-Wasserstein learning for graph matching and node embedding", ICML 2019.
        .. [4] Altschuler, Weed and Rigollet, "Near-linear time approximation algorithms for optimal transport via
           Sinkhorn iteration", NeurIPS 2017.
    """
    if options is not None and keywords:
        raise TypeError(f"both options and {', '.join(keywords)}: give one Options, or keywords alone")
    options = Options(**keywords) if options is None else options
    check_tensors(
        cost=cost,
        acoustic_lengths=acoustic_lengths,
        linguistic_lengths=linguistic_lengths,
        acoustic_weights=acoustic_weights,
        linguistic_weights=linguistic_weights,
        prior=prior,
        initial_plan=initial_plan,
    )
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
            solution = _backend(options.backend, problem)(problem)
        leaves = acoustic.tensors + linguistic.tensors
        value, linear, quadratic = _Envelope.apply(problem, solution, cost, *leaves)
        plan = solution.plan
        if options.plan_gradient == "implicit":
            plan = differentiable(problem, plan, cost, acoustic, linguistic)
    _warn(solution.converged)
    solved = {**vars(solution), "linear": linear, "quadratic": quadratic, "plan": plan}
    return FGWResult(value=value, **solved)


def _backend(name: str, problem: Problem) -> Callable[[Problem], Solution]:
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
    if importlib.util.find_spec("ot") is None:
        raise ValueError(
            "backend is 'pot', which is not installed: pip install 'espnet_gmot[pot]', or take 'auto' or 'torch'"
        )
    from espnet_gmot.transport import pot_backend

    return pot_backend.solve


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
