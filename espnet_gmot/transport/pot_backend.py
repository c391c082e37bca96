"""POT's own solvers behind the same function: one sample at a time, float64, slow and well known."""

from __future__ import annotations

import math

import numpy as np
import ot
import torch
from torch import Tensor

from espnet_gmot.transport.assess import gw_gradient
from espnet_gmot.transport.problem import Problem
from espnet_gmot.transport.proximal import Solution

__all__ = ["solve"]


def solve(problem: Problem) -> Solution:
    """`Solution` of a batch by POT [1]_: conditional gradient with an exact linear solver, for balanced problems.

    ε, inner iterations and the method are without meaning here. With α = 0 the linear problem is solved exactly,
    balanced or (majorisation-minimisation) KL-relaxed.

    Raises:
        ValueError: the problem is none that POT solves in the same sense.

    References:
        .. [1] Flamary et al., "POT: Python optimal transport", JMLR 2021.
    """
    options = problem.options
    if not options.balanced and options.alpha > 0.0:
        raise ValueError("backend is 'pot', which has no relaxed marginals with alpha > 0; take 'auto' or 'torch'")
    if options.alpha == 1.0 and problem.prior is not None:
        raise ValueError("backend is 'pot', which takes no prior with alpha = 1; take 'auto' or 'torch'")
    plan = torch.zeros_like(problem.cost)
    support = problem.support()
    gap = torch.zeros_like(problem.cost[:, 0, 0]) if problem.cost[0].numel() else problem.cost.sum((1, 2))
    iterations = torch.zeros(plan.shape[0], dtype=torch.long, device=plan.device)
    converged = torch.ones_like(iterations, dtype=torch.bool)
    linear = problem.linear_cost()
    acoustic, linguistic = problem.acoustic.dense(), problem.linguistic.dense()
    for i in range(plan.shape[0]):
        rows, columns = problem.acoustic_weights[i] > 0, problem.linguistic_weights[i] > 0
        if not bool(rows.any()):
            continue
        block = torch.meshgrid(rows.nonzero().squeeze(1), columns.nonzero().squeeze(1), indexing="ij")
        given = None if problem.initial_plan is None else _numpy(problem.initial_plan[i][block])
        solved, steps, fine = _one(
            _numpy(linear[i][block]),
            _numpy(acoustic[i][rows][:, rows]),
            _numpy(linguistic[i][columns][:, columns]),
            _weights(problem.acoustic_weights[i][rows]),
            _weights(problem.linguistic_weights[i][columns]),
            problem,
            given,
        )
        plan[i][block] = torch.from_numpy(solved).to(plan)
        iterations[i], converged[i] = steps, fine
    half = gw_gradient(problem, plan)
    half = torch.where(support, half, 0.0)
    gradient = linear + 2.0 * options.alpha * half
    for i in range(plan.shape[0]):
        gap[i] = _exact_gap(problem, gradient[i], plan[i], i)
    error = (plan.sum(2) - problem.acoustic_weights).abs().sum(-1) * math.isinf(options.rho_acoustic)
    error = error + (plan.sum(1) - problem.linguistic_weights).abs().sum(-1) * math.isinf(options.rho_linguistic)
    node = (torch.where(support, problem.cost, 0.0) * plan).sum((1, 2))
    return Solution(plan, node, (half * plan).sum((1, 2)).clamp(min=0.0), error, gap, iterations, converged)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()


def _weights(tensor: Tensor) -> np.ndarray:
    """Float64 weights whose sums agree to the last digit, as POT's exact solver wants them."""
    weights = _numpy(tensor)
    return weights / weights.sum()


def _one(
    linear: np.ndarray,
    acoustic: np.ndarray,
    linguistic: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    problem: Problem,
    given: np.ndarray | None,
) -> tuple[np.ndarray, int, bool]:
    """Plan, steps and convergence of one sample."""
    options = problem.options
    if options.alpha == 0.0 and options.balanced:
        return ot.emd(a, b, linear), 1, True
    if options.alpha == 0.0:
        rho = tuple(1e12 if math.isinf(r) else max(r, 1e-12) for r in (options.rho_acoustic, options.rho_linguistic))
        return ot.unbalanced.mm_unbalanced(a, b, linear, reg_m=rho, numItermax=100 * options.outer_iterations), 1, True
    given = None if given is None else ot.emd(a, b, -given)  # POT wants a feasible start
    common = {"symmetric": True, "G0": given, "max_iter": options.outer_iterations, "log": True}
    if options.alpha == 1.0:
        plan, log = ot.gromov.gromov_wasserstein(acoustic, linguistic, a, b, **common)
    else:
        cost = linear / (1.0 - options.alpha)
        plan, log = ot.gromov.fused_gromov_wasserstein(cost, acoustic, linguistic, a, b, alpha=options.alpha, **common)
    steps = max(len(log["loss"]) - 1, 1)
    return plan, steps, steps < options.outer_iterations


def _exact_gap(problem: Problem, gradient: Tensor, plan: Tensor, i: int) -> float:
    """Frank-Wolfe gap by an exact linear solver; nan for relaxed marginals."""
    if not problem.options.balanced:
        return math.nan
    rows, columns = problem.acoustic_weights[i] > 0, problem.linguistic_weights[i] > 0
    if not bool(rows.any()):
        return 0.0
    least = ot.emd2(
        _weights(problem.acoustic_weights[i][rows]),
        _weights(problem.linguistic_weights[i][columns]),
        _numpy(gradient[rows][:, columns]),
    )
    return max(float((gradient.double() * plan.double()).sum()) - float(least), 0.0)
