"""The outer loop in torch: proximal point or mirror descent, any device, no synchronisation with the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_gmot.transport import cuda, gpu
from espnet_gmot.transport.assess import assess, marginal_error, rounded, tangent
from espnet_gmot.transport.problem import Problem
from espnet_gmot.transport.sinkhorn import NOTHING, sinkhorn_log, sinkhorn_scaling
from espnet_gmot.transport.solution import Solution

__all__ = ["solve"]

FLOOR = -100.0  # log mass under which an entry stays: it may still come back when the gradient turns
INNER_SHARE = 0.01  # marginal error that a Sinkhorn step may leave, as a share of the plan's last move
WARM_MIX = 1e-3  # share of the product plan in a given initial plan, so that its zeros are not for ever


@dataclass
class State:
    """What an outer step hands to the next: plan (B, T, U), potentials in units of ε, and each sample's progress."""

    log_plan: Tensor  # (B, T, U), `NOTHING` off the support
    plan: Tensor  # (B, T, U)
    f: Tensor  # (B, T, 1)
    g: Tensor  # (B, 1, U)
    change: Tensor  # (B,) how far the plan moved, L1
    error: Tensor  # (B,) of its balanced marginals, L1
    iterations: Tensor  # (B,)
    done: Tensor  # (B,) bool


def solve(problem: Problem) -> Solution:
    """Solve a batch; every operation is per sample, so results do not depend on the batch."""
    problem = gpu.dense(problem)
    steps = Steps(problem)
    state = steps.start()
    if gpu.takes(problem):
        return gpu.solve(steps, state)
    step, watch = cuda.captured(steps.step, state, problem.options.outer_iterations), cuda.Watch(state.done)
    for number in range(problem.options.outer_iterations):
        state = step(state, problem.options.temperature(number))
        if watch(state.done):
            break
    plan = rounded(problem, state.plan)
    node, quadratic, gap = steps.assess(plan, state)
    return Solution(plan, node, quadratic, state.error, gap, state.iterations, state.done)


class Steps:
    """The outer steps of one batch, and what they share.

    Args:
        problem: the batch.
    """

    def __init__(self, problem: Problem) -> None:
        options, a, b = problem.options, problem.acoustic_weights, problem.linguistic_weights
        self.problem, self.options = problem, options
        self.support, self.linear = problem.support(), problem.linear_cost()
        self.scale = problem.scale(self.linear)
        epsilon = options.epsilon * (self.scale if options.epsilon_relative else torch.ones_like(self.scale))
        self.epsilon = epsilon.clamp(min=1e-30)[:, None, None]
        self.log_a, self.log_b = _log(a)[:, :, None], _log(b)[:, None, :]
        self.base = torch.where(self.support, self.log_a + self.log_b, NOTHING)

    def start(self) -> State:
        """The given or the product plan, and potentials which keep the first kernel's entries at most 1."""
        problem, zero = self.problem, torch.zeros_like(self.scale)
        log_plan = self.base if problem.initial_plan is None else _warm(problem, self.support)
        kernel = self.kernel(log_plan, log_plan.exp(), self.epsilon * self.options.temperature(0))
        f = torch.where(self.log_a > NOTHING, -kernel.amax(2, keepdim=True), 0.0)
        g = torch.where(self.log_b > NOTHING, -(kernel + f).amax(1, keepdim=True), 0.0)
        done = problem.acoustic_weights.sum(-1) == 0
        return State(log_plan, log_plan.exp(), f, g, zero + 1.0, zero, torch.zeros_like(done, dtype=torch.long), done)

    def kernel(self, log_plan: Tensor, plan: Tensor, epsilon: Tensor) -> Tensor:
        """Logarithm of a step's Sinkhorn kernel, (B, T, U)."""
        gradient = self.linear
        if self.options.alpha > 0.0:
            gradient = gradient + 2.0 * self.options.alpha * tangent(self.problem, plan)
        kernel = (log_plan if self.options.method == "proximal" else self.base) - gradient / epsilon
        return torch.where(self.support, kernel, NOTHING)

    def step(self, state: State, heat: float | Tensor) -> State:
        """One linearisation, solved by Sinkhorn.

        Args:
            state: where it starts; samples that are done stay as they are.
            heat: factor on ε.
        """
        options, epsilon = self.options, self.epsilon * heat
        kernel = self.kernel(state.log_plan, state.plan, epsilon)
        # early plans move far and need no exact marginals
        slack = (INNER_SHARE * state.change).clamp(min=0.1 * options.tolerance) if options.tolerance > 0.0 else None
        f, g = self._sinkhorn(kernel, state, epsilon, slack)
        log_plan = torch.where(self.support, (kernel + f + g).clamp(min=FLOOR), NOTHING)
        plan, kept = log_plan.exp(), state.done[:, None, None]
        change = (plan - state.plan).abs().sum((1, 2))
        fresh = State(
            log_plan=torch.where(kept, state.log_plan, log_plan),
            plan=torch.where(kept, state.plan, plan),
            f=torch.where(kept, state.f, f),
            g=torch.where(kept, state.g, g),
            change=change,
            error=torch.where(state.done, state.error, marginal_error(self.problem, plan)),
            iterations=state.iterations + (~state.done).long(),
            done=state.done,
        )
        resting = (
            (change <= options.tolerance) & (fresh.error <= options.tolerance) & (epsilon == self.epsilon)[:, 0, 0]
        )
        return self._judged(fresh, resting & ~state.done)

    def _judged(self, state: State, resting: Tensor) -> State:
        """Which of the plans that rest are done: by the proximal method those that are stationary too."""
        if resting.device.type == "cpu" and not bool(resting.any()):
            return state
        if self.options.method == "proximal":
            # a plan may rest where mass that it should have has all but vanished, and take long to come back
            plan = rounded(self.problem, state.plan)
            stationary = self.assess(plan, state)[2] <= self.options.tolerance * self.scale
            state.plan = torch.where(resting[:, None, None], plan, state.plan)
            resting = resting & stationary
        state.done = state.done | resting
        return state

    def assess(self, plan: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Linear part, energy and gap of a plan, with the potentials of a state."""
        return assess(self.problem, plan, self.linear, state.f * self.epsilon, state.g * self.epsilon)

    def _sinkhorn(self, kernel: Tensor, state: State, epsilon: Tensor, slack: Tensor | None) -> tuple[Tensor, Tensor]:
        """In the log domain on a GPU; on a CPU by matrix products, and again in the log domain where those overflow."""
        parts = (kernel, self.log_a, self.log_b, state.f, state.g, epsilon)
        effort = (self.options.rho_acoustic, self.options.rho_linguistic, self.options.inner_iterations)
        if kernel.device.type != "cpu":
            return gpu.scaled(*parts, *effort, slack)
        f, g, safe = sinkhorn_scaling(*parts, *effort, slack)
        rest = (~(safe | state.done)).nonzero().squeeze(1)
        if len(rest):
            kernel, log_a, log_b, f0, g0, epsilon = (part[rest] for part in parts)
            slack = None if slack is None else slack[rest]
            f[rest], g[rest] = sinkhorn_log(kernel, log_a, log_b, f0, g0, epsilon, *effort, slack)
        return f, g


def _log(weights: Tensor) -> Tensor:
    return torch.where(weights > 0, weights.clamp(min=1e-38).log(), NOTHING)


def _warm(problem: Problem, support: Tensor) -> Tensor:
    """Logarithm of the given plan, mixed with the product plan."""
    assert problem.initial_plan is not None
    given = torch.where(support, problem.initial_plan.clamp(min=0.0), 0.0)
    mass = given.sum((1, 2), keepdim=True)
    product = problem.acoustic_weights[:, :, None] * problem.linguistic_weights[:, None, :]
    mixed = torch.where(mass > 0, (1.0 - WARM_MIX) * given / mass.clamp(min=1e-30) + WARM_MIX * product, product)
    return torch.where(support, mixed.clamp(min=1e-38).log(), NOTHING)
