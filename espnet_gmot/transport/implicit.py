"""The plan's own gradient, by implicit differentiation of the entropic problem at its solution."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from espnet_gmot.transport.assess import tangent
from espnet_gmot.transport.edges import Edges
from espnet_gmot.transport.problem import TINY, Problem

__all__ = ["differentiable"]

STEPS = 100  # of conjugate gradient at most
ACCURACY = {torch.float32: 1e-5, torch.float64: 1e-10}  # relative residual at which a sample stops
NULL = 1e-10  # normalised eigenvalue under which a direction of the potentials moves no mass


def differentiable(problem: Problem, plan: Tensor, cost: Tensor, acoustic: Edges, linguistic: Edges) -> Tensor:
    """The solved plan, with its gradient to the cost and to both edges.

    A plan γ of the entropic problem is stationary: E(γ) + ε·log(γ/abᵀ) is a sum of potentials, E the effective cost. A
    change dE moves it by −H⁻¹dE, H the Hessian restricted to changes that keep exact marginals. H is symmetric, so a
    gradient v to the plan becomes w = −H⁻¹v to E; conjugate gradient finds w, preconditioned by the entropic part of H,
    which is Sinkhorn's own linear system. No step of the solver is kept or repeated [1]_.

    Args:
        problem: the batch, solved by mirror descent.
        plan: (B, T, U) its converged plan.
        cost: (B, T, U) as given, with its graph.
        acoustic: edges as given.
        linguistic: likewise.

    References:
        .. [1] Blondel et al., "Efficient and modular implicit differentiation", NeurIPS 2022.
    """
    moved: Tensor = _Implicit.apply(problem, plan, (acoustic, linguistic), cost, *acoustic.tensors, *linguistic.tensors)
    return moved


class _Implicit(torch.autograd.Function):
    """The identity on the plan, whose backward solves for what moved it."""

    @staticmethod
    def forward(
        ctx: Any, problem: Problem, plan: Tensor, edges: tuple[Edges, Edges], cost: Tensor, *leaves: Tensor
    ) -> Tensor:
        """A copy of the plan, (B, T, U)."""
        ctx.problem, ctx.plan, ctx.edges = problem, plan, edges
        ctx.save_for_backward(cost, *leaves)
        return plan.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_plan: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients to the cost (B, T, U) and to the leaves of both edges."""
        problem, plan = ctx.problem, ctx.plan
        with torch.autocast(plan.device.type, enabled=False):
            epsilon = _epsilon(problem).detach()
            by_effective = _solve(problem, plan, by_plan.to(plan.dtype), epsilon[:, None, None])
            with torch.enable_grad():
                wants = ctx.needs_input_grad[3:]
                leaves = [t.detach().requires_grad_(w) for t, w in zip(ctx.saved_tensors, wants, strict=True)]
                total = (by_effective * _effective(problem, plan, ctx.edges, leaves)).sum()
                wanted = [t for t in leaves if t.requires_grad] if total.requires_grad else []
                grads = iter(torch.autograd.grad(total, wanted, allow_unused=True) if wanted else ())
        return None, None, None, *(next(grads, None) if t.requires_grad else None for t in leaves)


def _epsilon(problem: Problem) -> Tensor:
    """ε of every sample in units of the cost, (B,)."""
    if not problem.options.epsilon_relative:
        return torch.full_like(problem.cost.sum((1, 2)), problem.options.epsilon)
    return problem.options.epsilon * problem.scale(problem.linear_cost())


def _effective(problem: Problem, plan: Tensor, edges: tuple[Edges, Edges], leaves: list[Tensor]) -> Tensor:
    """E + ε·log(γ/abᵀ) at a fixed plan as a function of cost and edges, up to what potentials absorb; (B, T, U)."""
    count = len(edges[0].tensors)
    moved = replace(
        problem,
        cost=leaves[0].to(plan.dtype),
        acoustic=edges[0].with_tensors(leaves[1 : 1 + count]).to(plan.dtype),
        linguistic=edges[1].with_tensors(leaves[1 + count :]).to(plan.dtype),
    )
    effective = moved.linear_cost()
    if problem.options.alpha > 0.0:
        effective = effective + 2.0 * problem.options.alpha * tangent(moved, plan)
    if problem.options.epsilon_relative:
        product = problem.acoustic_weights[:, :, None] * problem.linguistic_weights[:, None, :]
        spread = (plan.clamp(min=TINY) / product.clamp(min=TINY)).log()
        effective = effective + _epsilon(moved)[:, None, None] * spread
    return effective


def _solve(problem: Problem, plan: Tensor, gradient: Tensor, epsilon: Tensor) -> Tensor:
    """w = −H⁻¹·gradient, (B, T, U), by projected conjugate gradient; a sample of negative curvature stops there."""
    project = _Projection(problem, plan, epsilon)
    weight = torch.zeros_like(plan)
    residual = torch.where(plan > 0, -gradient, 0.0)
    ratio = project(residual)  # directions are kept divided by the plan: tiny masses never divide anything
    move, power = ratio, _power(problem, plan, ratio, epsilon)
    goal = power * ACCURACY[plan.dtype] ** 2
    for _ in range(STEPS):
        image = _hessian(problem, plan, move, epsilon)
        curvature = (plan * move * image).sum((1, 2))
        length = torch.where((power > goal) & (curvature > 0), power / curvature.clamp(min=TINY), 0.0)
        weight = weight + length[:, None, None] * move * plan
        residual = residual - length[:, None, None] * image
        ratio = project(residual)
        fresh = _power(problem, plan, ratio, epsilon)
        move = ratio + torch.where(length > 0, fresh / power.clamp(min=TINY), 0.0)[:, None, None] * move
        power = torch.where(length > 0, fresh, 0.0)
        if plan.device.type == "cpu" and not bool((power > goal).any()):
            break
    return weight


def _hessian(problem: Problem, plan: Tensor, ratio: Tensor, epsilon: Tensor) -> Tensor:
    """H·(plan∘ratio), up to terms of one index where that marginal is exact."""
    image = _entropic(problem, plan, ratio, epsilon)
    if problem.options.alpha > 0.0:
        image = image + 2.0 * problem.options.alpha * tangent(problem, plan * ratio)
    return torch.where(plan > 0, image, 0.0)


def _power(problem: Problem, plan: Tensor, ratio: Tensor, epsilon: Tensor) -> Tensor:
    """⟨residual, plan∘ratio⟩, (B,), by the preconditioner: what exact marginals absorb of the residual never vanishes,
    and its rounding would outweigh the rest."""
    return (plan * ratio * _entropic(problem, plan, ratio, epsilon)).sum((1, 2))


def _entropic(problem: Problem, plan: Tensor, ratio: Tensor, epsilon: Tensor) -> Tensor:
    """The part of H·(plan∘ratio) that entropy and penalties make, (B, T, U)."""
    options, change = problem.options, plan * ratio
    image = epsilon * ratio
    for rho, axis in ((options.rho_acoustic, 2), (options.rho_linguistic, 1)):
        if math.isfinite(rho):
            image = image + rho * change.sum(axis, keepdim=True) / plan.sum(axis, keepdim=True).clamp(min=TINY)
    return image


class _Projection:
    """r ↦ z such that plan∘z solves the entropic part of H against r: z = (r − μ1ᵀ − 1νᵀ)/ε.

    Exact marginals make plan∘z sum to zero along each row or column; relaxed ones weigh μ and ν by 1 + ε/ρ.
    """

    def __init__(self, problem: Problem, plan: Tensor, epsilon: Tensor) -> None:
        self.wide, self.epsilon = plan.double(), epsilon
        wide, flat = self.wide, epsilon[:, :, 0].double()
        rows, columns = (
            wide.sum(axis) * (1.0 if math.isinf(rho) else 1.0 + flat / max(rho, TINY))
            for rho, axis in ((problem.options.rho_acoustic, 2), (problem.options.rho_linguistic, 1))
        )
        self.by_rows = torch.where(rows > 0, 1.0 / rows.clamp(min=TINY), 0.0)
        root = torch.where(columns > 0, columns.clamp(min=TINY).rsqrt(), 0.0)
        # what is left for ν when μ is eliminated, (B, U, U), scaled to eigenvalues in [0, 1]
        mixed = (wide * self.by_rows[:, :, None]).mT @ wide
        eye = torch.eye(columns.shape[1], dtype=wide.dtype, device=wide.device)
        values, vectors = torch.linalg.eigh(eye - root[:, :, None] * mixed * root[:, None, :])
        inverse = torch.where(values > NULL, 1.0 / values.clamp(min=NULL), 0.0)
        self.inverse = root[:, :, None] * ((vectors * inverse[:, None, :]) @ vectors.mT) * root[:, None, :]

    def __call__(self, residual: Tensor) -> Tensor:
        """(B, T, U) → (B, T, U)."""
        wide, flow = self.wide, self.wide * residual
        rows = flow.sum(2) * self.by_rows
        nu = (self.inverse @ (flow.sum(1) - (wide.mT @ rows[:, :, None]).squeeze(2))[:, :, None]).squeeze(2)
        mu = rows - (wide @ nu[:, :, None]).squeeze(2) * self.by_rows
        free = (residual - mu[:, :, None] - nu[:, None, :]) / self.epsilon
        return torch.where(wide > 0, free, 0.0).to(residual.dtype)
