"""What a plan is worth: its parts, and how far it is from stationary."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from espnet_gmot.transport.problem import Problem
from espnet_gmot.transport.sinkhorn import NOTHING, round_plan

__all__ = ["assess", "gw_gradient", "marginal_error", "rounded", "tangent"]


def gw_gradient(problem: Problem, plan: Tensor) -> Tensor:
    """(A,L)⊗plan, half the gradient of the GW energy, (B, T, U).

    Peyré, Cuturi and Solomon 2016: (A∘A)p 1ᵀ + 1 ((L∘L)q)ᵀ − 2·A·plan·L, with the plan's own marginals p and q.
    """
    p, q = plan.sum(2), plan.sum(1)
    cross = problem.linguistic.apply(problem.acoustic.apply(plan).mT).mT
    squares = (
        problem.acoustic.hadamard(problem.acoustic, p)[:, :, None]
        + problem.linguistic.hadamard(problem.linguistic, q)[:, None, :]
    )
    return squares - 2.0 * cross


def tangent(problem: Problem, plan: Tensor) -> Tensor:
    """(A,L)⊗plan, up to terms of one index that a balanced Sinkhorn absorbs."""
    if not problem.options.balanced:
        return gw_gradient(problem, plan)
    return -2.0 * problem.linguistic.apply(problem.acoustic.apply(plan).mT).mT


def rounded(problem: Problem, plan: Tensor) -> Tensor:
    """The plan with exact marginals where they are balanced, exactly 0 off the support, (B, T, U)."""
    exact = math.isinf(problem.options.rho_acoustic), math.isinf(problem.options.rho_linguistic)
    plan = round_plan(plan, problem.acoustic_weights, problem.linguistic_weights, *exact)
    return torch.where(problem.support(), plan, 0.0)


def marginal_error(problem: Problem, plan: Tensor) -> Tensor:
    """L1 distance of the plan's balanced marginals, (B,)."""
    error = torch.zeros_like(plan.sum((1, 2)))
    if math.isinf(problem.options.rho_acoustic):
        error = error + (plan.sum(2) - problem.acoustic_weights).abs().sum(-1)
    if math.isinf(problem.options.rho_linguistic):
        error = error + (plan.sum(1) - problem.linguistic_weights).abs().sum(-1)
    return error


def assess(problem: Problem, plan: Tensor, linear: Tensor, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """⟨cost, plan⟩, the GW energy and the duality gap of the problem linearised at the plan; (B,) each.

    Args:
        problem: the batch.
        plan: (B, T, U).
        linear: (B, T, U) its linear cost.
        f: (B, T, 1) potentials of the last step, in units of the cost.
        g: (B, 1, U) likewise.
    """
    options, support = problem.options, problem.support()
    node = (torch.where(support, problem.cost, 0.0) * plan).sum((1, 2))
    half = gw_gradient(problem, plan)
    half = torch.where(support, half, 0.0)
    quadratic = (half * plan).sum((1, 2)).clamp(min=0.0)
    gradient = linear + 2.0 * options.alpha * half
    if options.balanced:  # the steps left out what their potentials would have absorbed
        rows = problem.acoustic.hadamard(problem.acoustic, plan.sum(2))
        f = f + 2.0 * options.alpha * rows[:, :, None]
    # c-transforms make the potentials feasible for ⟨gradient, ·⟩, whose value no plan can then undercut
    far = torch.where(support, gradient, -NOTHING)
    g = _conjugate((far - f).amin(1, keepdim=True), problem.linguistic_weights[:, None, :])
    if options.rho_linguistic == 0.0:  # a free marginal has no price
        g = torch.zeros_like(g)
    f = _conjugate((far - g).amin(2, keepdim=True), problem.acoustic_weights[:, :, None])
    primal = (gradient * plan).sum((1, 2))
    dual = torch.zeros_like(primal)
    sides = (
        (options.rho_acoustic, f.squeeze(2), problem.acoustic_weights, plan.sum(2)),
        (options.rho_linguistic, g.squeeze(1), problem.linguistic_weights, plan.sum(1)),
    )
    for rho, potential, weights, marginal in sides:
        if math.isinf(rho):
            dual = dual + (potential * weights).sum(-1)
        elif rho > 0.0:
            dual = dual - rho * (weights * torch.expm1((-potential / rho).clamp(max=80.0))).sum(-1)
            primal = primal + rho * _kl(marginal, weights)
    return node, quadratic, (primal - dual).clamp(min=0.0)


def _conjugate(potential: Tensor, weights: Tensor) -> Tensor:
    return torch.where(weights > 0, potential, 0.0)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Σ p log(p/q) − p + q; q is positive wherever p is."""
    return (torch.where(p > 0, p * (p.clamp(min=1e-38) / q.clamp(min=1e-38)).log(), 0.0) - p + q).sum(-1)
