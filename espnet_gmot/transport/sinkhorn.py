"""Sinkhorn's scaling, balanced or KL-relaxed, in the log domain or by matrix products, and rounding to marginals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["NOTHING", "round_plan", "sinkhorn_log", "sinkhorn_scaling"]

SAFE = 1e13  # scalings beyond it, or below its inverse, have lost digits
NOTHING = -1e30  # the logarithm of no mass: finite, so that differences and maxima stay finite


def sinkhorn_log(
    kernel: Tensor,
    log_a: Tensor,
    log_b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: Tensor,
    rho_a: float,
    rho_b: float,
    iterations: int,
    slack: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Potentials f, g such that exp(kernel + f + g) has the marginals a and b, or is near them in KL.

    Args:
        kernel: (B, T, U) log kernel, `NOTHING` off the support.
        log_a: (B, T, 1) log weights, `NOTHING` where zero.
        log_b: (B, 1, U) likewise.
        f: (B, T, 1) potentials to start from, in units of ε.
        g: (B, 1, U) likewise.
        epsilon: (B, 1, 1) the entropic strength that `rho_a` and `rho_b` compete with.
        rho_a: strength of the KL penalty on the rows' marginal; inf for an exact one, 0 for none.
        rho_b: likewise for the columns.
        iterations: number of updates of each side; the rows come last.
        slack: (B,) L1 error of the columns' marginal at which a sample stops early; never by default.

    Returns:
        f and g; 0 where there is no mass.
    """
    has_a, has_b = log_a > 0.5 * NOTHING, log_b > 0.5 * NOTHING
    power_a, power_b = _power(rho_a, epsilon), _power(rho_b, epsilon)
    weights_b = log_b.exp()
    active = torch.ones_like(epsilon, dtype=torch.bool)
    for step in range(iterations):
        new_g = torch.where(has_b, power_b * (log_b - _logsumexp(kernel + f, 1)), 0.0)
        new_f = torch.where(has_a, power_a * (log_a - _logsumexp(kernel + new_g, 2)), 0.0)
        if slack is None:
            f, g = new_f, new_g
            continue
        error = (weights_b * torch.expm1((g - new_g).clamp(max=80.0)).abs()).sum((1, 2))
        f, g = torch.where(active, new_f, f), torch.where(active, new_g, g)
        if step > 0:
            active = active & (error > slack)[:, None, None]
            if f.device.type == "cpu" and not bool(active.any()):
                break
    return f, g


def sinkhorn_scaling(
    kernel: Tensor,
    log_a: Tensor,
    log_b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: Tensor,
    rho_a: float,
    rho_b: float,
    iterations: int,
    slack: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The steps of `sinkhorn_log` as matrix products around absorbed potentials: quicker on a CPU, not always safe.

    Returns:
        f and g, and (B,) bool: False where a scaling left the safe range, whose f and g mean nothing.
    """
    a, b, before = log_a.exp().squeeze(2), log_b.exp().squeeze(1), (f.squeeze(2), g.squeeze(1))
    scaled = (kernel + f + g).exp_()
    powers = _power(rho_a, epsilon).squeeze(2), _power(rho_b, epsilon).squeeze(2)
    x, y = (a > 0).to(a.dtype), torch.zeros_like(b)
    active = torch.ones_like(a[:, :1], dtype=torch.bool) if a.shape[1] else torch.ones_like(powers[0]).bool()
    for step in range(iterations):
        new_y = _scaling(b, torch.bmm(scaled.mT, x.unsqueeze(2)).squeeze(2), before[1], powers[1], rho_b)
        new_x = _scaling(a, torch.bmm(scaled, new_y.unsqueeze(2)).squeeze(2), before[0], powers[0], rho_a)
        if slack is None:
            x, y = new_x, new_y
            continue
        error = torch.where(b > 0, b * (y / new_y - 1.0).abs(), 0.0).sum(1)
        x, y = torch.where(active, new_x, x), torch.where(active, new_y, y)
        if step > 0:
            active = active & (error > slack)[:, None]
            if not bool(active.any()):
                break
    safe = torch.ones_like(active[:, 0])
    for scaling, weights in ((x, a), (y, b)):
        safe = safe & ((weights == 0) | ((scaling < SAFE) & (scaling > 1.0 / SAFE))).all(1)
    new_f = torch.where(a > 0, before[0] + x.clamp(min=1e-38).log(), 0.0)
    new_g = torch.where(b > 0, before[1] + y.clamp(min=1e-38).log(), 0.0)
    return new_f.unsqueeze(2), new_g.unsqueeze(1), safe


def _scaling(weights: Tensor, total: Tensor, potential: Tensor, power: Tensor, rho: float) -> Tensor:
    """A side's new scaling, around its absorbed potential; 0 where it has no weight."""
    total = total.clamp(min=1e-37)
    if math.isinf(rho):
        return weights / total
    goal = power * (weights.clamp(min=1e-38).log() - total.log() + potential)
    return torch.where(weights > 0, (goal - potential).clamp(-87.0, 87.0).exp(), 0.0)


def _logsumexp(values: Tensor, axis: int) -> Tensor:
    """As torch's, without its care for infinities, which never occur here; keeps the axis."""
    top = values.amax(axis, keepdim=True)
    return values.sub_(top).exp_().sum(axis, keepdim=True).log_().add_(top)


def _power(rho: float, epsilon: Tensor) -> Tensor:
    """ρ/(ρ + ε), the exponent of a relaxed Sinkhorn update."""
    return torch.ones_like(epsilon) if math.isinf(rho) else rho / (rho + epsilon)


def round_plan(plan: Tensor, a: Tensor, b: Tensor, balanced_a: bool = True, balanced_b: bool = True) -> Tensor:
    """The nearby plan with exact marginals (Altschuler, Weed and Rigollet 2017, algorithm 2).

    With one balanced side, that side's rows or columns are scaled (an empty one is filled in proportion to the
    other side's weights); with none, the plan is returned as it is.

    Args:
        plan: (B, T, U), non-negative.
        a: (B, T) row marginal.
        b: (B, U) column marginal.
        balanced_a: rows must sum to a.
        balanced_b: columns must sum to b.
    """
    if balanced_a and balanced_b:
        plan = plan * _ratio(a, plan.sum(2)).clamp(max=1.0)[:, :, None]
        plan = plan * _ratio(b, plan.sum(1)).clamp(max=1.0)[:, None, :]
        missing_a, missing_b = (a - plan.sum(2)).clamp(min=0.0), (b - plan.sum(1)).clamp(min=0.0)
        missing = missing_b / missing_a.sum(-1, keepdim=True).clamp(min=1e-30)
        return plan + missing_a[:, :, None] * missing[:, None, :]
    if balanced_a:
        rows = plan.sum(2)
        filled = torch.where((rows > 1e-30)[:, :, None], plan, b[:, None, :])
        return filled * _ratio(a, filled.sum(2))[:, :, None]
    if balanced_b:
        return round_plan(plan.mT, b, a, True, False).mT
    return plan


def _ratio(target: Tensor, actual: Tensor) -> Tensor:
    """target / actual, 0 where nothing is there to scale."""
    return torch.where(actual > 1e-30, target / actual.clamp(min=1e-30), 0.0)
