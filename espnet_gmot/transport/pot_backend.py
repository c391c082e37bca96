"""POT's own solvers behind the same function: one sample at a time, float64, slow and well known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import ot
import torch
from torch import Tensor

from espnet_gmot.transport.assess import gw_gradient, rounded
from espnet_gmot.transport.options import Options
from espnet_gmot.transport.problem import TINY, Problem
from espnet_gmot.transport.solution import Solution

__all__ = ["solve"]


def solve(problem: Problem) -> Solution:
    """`Solution` of a batch by POT [1]_: conditional gradient with an exact linear solver for exact marginals, its
    semi-relaxed form where one is relaxed, L-BFGS-B where both are.

    ε, inner iterations and the method are without meaning here. With α = 0 a balanced problem is solved exactly.

    References:
        .. [1] Flamary et al., "POT: Python optimal transport", JMLR 2021.
    """
    options = problem.options
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
        given = None if given is None or not given.any() else given
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
    if not options.balanced:
        plan = rounded(problem, plan)
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
    shares: np.ndarray = weights / weights.sum()
    return shares


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
    if not options.balanced:
        return _relaxed(linear, acoustic, linguistic, a, b, options, given)
    if options.alpha == 0.0:
        return ot.emd(a, b, linear), 1, True
    given = None if given is None else ot.emd(a, b, -given)  # POT wants a feasible start
    share = options.alpha if options.alpha < 1.0 else 0.5  # any, as long as cost and edges keep their proportion
    plan, log = ot.gromov.fused_gromov_wasserstein(
        linear * share / ((1.0 - share) * options.alpha),
        acoustic,
        linguistic,
        a,
        b,
        alpha=share,
        symmetric=True,
        G0=given,
        max_iter=options.outer_iterations,
        log=True,
    )
    steps = max(len(log["loss"]) - 1, 1)
    return plan, steps, steps < options.outer_iterations


def _relaxed(
    linear: np.ndarray,
    acoustic: np.ndarray,
    linguistic: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    options: Options,
    given: np.ndarray | None,
) -> tuple[np.ndarray, int, bool]:
    """Plan, iterations and convergence of a sample with one or two KL-relaxed marginals."""
    exact = math.isinf(options.rho_acoustic), math.isinf(options.rho_linguistic)
    if exact[1]:  # POT holds the rows' marginal
        swapped = replace(options, rho_acoustic=options.rho_linguistic, rho_linguistic=options.rho_acoustic)
        given = None if given is None else given.T
        plan, steps, fine = _relaxed(linear.T, linguistic, acoustic, b, a, swapped, given)
        return plan.T, steps, fine

    def half(plan: np.ndarray) -> np.ndarray:
        """(A,L)⊗plan, (T, U)."""
        rows, columns = acoustic**2 @ plan.sum(1), linguistic**2 @ plan.sum(0)
        halved: np.ndarray = rows[:, None] + columns[None, :] - 2.0 * acoustic @ plan @ linguistic
        return halved

    def energy(plan: np.ndarray) -> float:
        """α times the GW energy."""
        return options.alpha * float((half(plan) * plan).sum())

    start, many = np.outer(a, b) if given is None else given, 10 * options.outer_iterations
    if not exact[0]:
        parts = energy, lambda plan: 2.0 * options.alpha * half(plan)
        rho = options.rho_acoustic, options.rho_linguistic
        plan, log = ot.unbalanced.lbfgsb_unbalanced(
            a, b, linear, 1.0, rho, reg_div=parts, G0=start, numItermax=many, log=True
        )
        return plan, log["res"].nit, bool(log["res"].success)

    def penalised(plan: np.ndarray) -> float:
        """Energy and KL penalty of the columns."""
        q = plan.sum(0)
        return energy(plan) + options.rho_linguistic * float((q * np.log(np.maximum(q, TINY) / b) - q + b).sum())

    def slope(plan: np.ndarray) -> np.ndarray:
        """Gradient of `penalised`, (T, U)."""
        fill = options.rho_linguistic * np.log(np.maximum(plan.sum(0), TINY) / b)
        gradient: np.ndarray = 2.0 * options.alpha * half(plan) + fill[None, :]
        return gradient

    start = start * (a / np.maximum(start.sum(1), TINY))[:, None]
    plan, log = ot.optim.semirelaxed_cg(a, b, linear, 1.0, penalised, slope, G0=start, numItermax=many, log=True)
    return plan, len(log["loss"]) - 1, len(log["loss"]) <= many


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
