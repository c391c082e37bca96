"""The outer loop in torch: proximal point or mirror descent, any device, no synchronisation with the host."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_gmot.transport.problem import Problem
from espnet_gmot.transport.sinkhorn import NOTHING, round_plan, sinkhorn_log, sinkhorn_scaling

__all__ = ["Solution", "gw_gradient", "solve"]

FLOOR = -100.0  # log mass under which an entry stays: it may still come back when the gradient turns
INNER_SHARE = 0.01  # marginal error that a Sinkhorn step may leave, as a share of the plan's last move
WARM_MIX = 1e-3  # share of the product plan in a given initial plan, so that its zeros are not for ever


@dataclass(frozen=True)
class Solution:
    """What a backend returns; (B,) each, plan (B, T, U)."""

    plan: Tensor
    linear: Tensor
    quadratic: Tensor
    marginal_error: Tensor
    gap: Tensor
    iterations: Tensor
    converged: Tensor


def gw_gradient(problem: Problem, plan: Tensor) -> tuple[Tensor, Tensor]:
    """(A,L)⊗plan, half the gradient of the GW energy, and A·plan·L; both (B, T, U).

    Peyré, Cuturi and Solomon 2016: (A∘A)p 1ᵀ + 1 ((L∘L)q)ᵀ − 2·A·plan·L, with the plan's own marginals p and q.
    """
    p, q = plan.sum(2), plan.sum(1)
    cross = problem.linguistic.apply(problem.acoustic.apply(plan).mT).mT
    squares = problem.acoustic.hadamard(problem.acoustic, p)[:, :, None] * (q.sum(-1) > 0)[:, None, None]
    squares = squares + problem.linguistic.hadamard(problem.linguistic, q)[:, None, :]
    return squares - 2.0 * cross, cross


def solve(problem: Problem) -> Solution:
    """Solve a batch; every operation is per sample, so results do not depend on the batch."""
    options, a, b = problem.options, problem.acoustic_weights, problem.linguistic_weights
    support = problem.support()
    linear = problem.linear_cost()
    epsilon = torch.full_like(a.sum(-1), options.epsilon)
    if options.epsilon_relative:
        epsilon = epsilon * problem.scale(linear)
    epsilon = epsilon.clamp(min=1e-30)[:, None, None]
    log_a, log_b = _log(a)[:, :, None], _log(b)[:, None, :]
    base = torch.where(support, log_a + log_b, NOTHING)
    log_plan = base if problem.initial_plan is None else _warm(problem, support)
    plan, f, g = log_plan.exp(), torch.zeros_like(log_a), torch.zeros_like(log_b)
    done = a.sum(-1) == 0
    change = torch.ones_like(epsilon[:, 0, 0])
    iterations, error = torch.zeros_like(done, dtype=torch.long), torch.zeros_like(a.sum(-1))
    for step in range(options.outer_iterations):
        now = epsilon * options.temperature(step)
        gradient = linear
        if options.alpha > 0.0:
            gradient = gradient + 2.0 * options.alpha * _tangent(problem, plan)
        kernel = (log_plan if options.method == "proximal" else base) - gradient / now
        kernel = torch.where(support, kernel, NOTHING)
        if step == 0:
            f = torch.where(a[:, :, None] > 0, -kernel.amax(2, keepdim=True), 0.0)
            g = torch.where(b[:, None, :] > 0, -(kernel + f).amax(1, keepdim=True), 0.0)
        rho = options.rho_acoustic, options.rho_linguistic
        # early plans move far and need no exact marginals
        slack = (INNER_SHARE * change).clamp(min=0.1 * options.tolerance) if options.tolerance > 0.0 else None
        new_f, new_g = _sinkhorn(kernel, log_a, log_b, f, g, now, *rho, options.inner_iterations, slack, done)
        fresh_log = torch.where(support, (kernel + new_f + new_g).clamp(min=FLOOR), NOTHING)
        fresh = fresh_log.exp()
        frozen = done[:, None, None]
        change = (fresh - plan).abs().sum((1, 2))
        error = torch.where(done, error, _marginal_error(problem, fresh))
        log_plan, plan = torch.where(frozen, log_plan, fresh_log), torch.where(frozen, plan, fresh)
        f, g = torch.where(frozen, f, new_f), torch.where(frozen, g, new_g)
        iterations = iterations + (~done).long()
        settled = options.temperature(step) == 1.0
        done = done | ((change <= options.tolerance) & (error <= options.tolerance) & settled)
        if plan.device.type == "cpu" and bool(done.all()):
            break
    balanced = math.isinf(options.rho_acoustic), math.isinf(options.rho_linguistic)
    plan = torch.where(support, round_plan(plan, a, b, *balanced), 0.0)
    value, quadratic, gap = _assess(problem, plan, linear, f * epsilon, g * epsilon)
    return Solution(plan, value, quadratic, error, gap, iterations, done)


def _sinkhorn(
    kernel: Tensor,
    log_a: Tensor,
    log_b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: Tensor,
    rho_a: float,
    rho_b: float,
    iterations: int,
    slack: Tensor | None,
    done: Tensor,
) -> tuple[Tensor, Tensor]:
    """In the log domain on a GPU; on a CPU by matrix products, and again in the log domain where those overflow."""
    if kernel.device.type != "cpu":
        return sinkhorn_log(kernel, log_a, log_b, f, g, epsilon, rho_a, rho_b, iterations, slack)
    new_f, new_g, safe = sinkhorn_scaling(kernel, log_a, log_b, f, g, epsilon, rho_a, rho_b, iterations, slack)
    rest = (~(safe | done)).nonzero().squeeze(1)
    if len(rest):
        parts = [x[rest] for x in (kernel, log_a, log_b, f, g, epsilon)]
        again = sinkhorn_log(*parts, rho_a, rho_b, iterations, None if slack is None else slack[rest])
        new_f[rest], new_g[rest] = again
    return new_f, new_g


def _log(weights: Tensor) -> Tensor:
    return torch.where(weights > 0, weights.clamp(min=1e-38).log(), NOTHING)


def _warm(problem: Problem, support: Tensor) -> Tensor:
    """Logarithm of the given plan, mixed with the product plan."""
    given = torch.where(support, problem.initial_plan.clamp(min=0.0), 0.0)
    given = given / given.sum((1, 2), keepdim=True).clamp(min=1e-30)
    product = problem.acoustic_weights[:, :, None] * problem.linguistic_weights[:, None, :]
    mixed = (1.0 - WARM_MIX) * given + WARM_MIX * product
    return torch.where(support, mixed.clamp(min=1e-38).log(), NOTHING)


def _tangent(problem: Problem, plan: Tensor) -> Tensor:
    """(A,L)⊗plan, up to terms of one index that a balanced Sinkhorn absorbs."""
    if not problem.options.balanced:
        return gw_gradient(problem, plan)[0]
    return -2.0 * problem.linguistic.apply(problem.acoustic.apply(plan).mT).mT


def _marginal_error(problem: Problem, plan: Tensor) -> Tensor:
    """L1 distance of the plan's balanced marginals, (B,)."""
    error = torch.zeros_like(plan.sum((1, 2)))
    if math.isinf(problem.options.rho_acoustic):
        error = error + (plan.sum(2) - problem.acoustic_weights).abs().sum(-1)
    if math.isinf(problem.options.rho_linguistic):
        error = error + (plan.sum(1) - problem.linguistic_weights).abs().sum(-1)
    return error


def _assess(problem: Problem, plan: Tensor, linear: Tensor, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """⟨cost, plan⟩, the GW energy and the duality gap of the linearised problem at the plan; (B,) each."""
    options, support = problem.options, problem.support()
    node = (torch.where(support, problem.cost, 0.0) * plan).sum((1, 2))
    half, _ = gw_gradient(problem, plan)
    half = torch.where(support, half, 0.0)
    quadratic = (half * plan).sum((1, 2)).clamp(min=0.0)
    gradient = linear + 2.0 * options.alpha * half
    if options.balanced:  # the steps left out what their potentials would have absorbed
        rows = problem.acoustic.hadamard(problem.acoustic, plan.sum(2))
        f = f + 2.0 * options.alpha * rows[:, :, None]
    # c-transforms make the potentials feasible for ⟨gradient, ·⟩, whose value no plan can then undercut
    far = torch.where(support, gradient, -NOTHING)
    g = _conjugate((far - f).amin(1, keepdim=True), problem.linguistic_weights[:, None, :])
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
