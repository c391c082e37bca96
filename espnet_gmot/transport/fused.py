"""The solver as few large kernels of a GPU, by Triton, which comes with torch's builds for GPUs.

What torch would launch a thousand kernels for, each with less work than its launch costs, are three here for an outer
step with exact marginals, and one for the Sinkhorn of a step with relaxed ones.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from espnet_gmot.transport import cuda
from espnet_gmot.transport.edges import DenseEdges
from espnet_gmot.transport.problem import Problem
from espnet_gmot.transport.sinkhorn import sinkhorn_log
from espnet_gmot.transport.solution import Solution

if TYPE_CHECKING:
    from espnet_gmot.transport.proximal import State, Steps

__all__ = ["sinkhorn", "solve", "takes"]

TILE = 8192  # entries of a matrix that one sample's threads hold at a time
WIDEST = 4096  # tokens beyond which a row is no tile any more

_refused = False


def takes(problem: Problem) -> bool:
    """Whether `solve` can take a problem: exact marginals, float32 on a GPU, rows that a tile can hold, and Triton."""
    return problem.options.balanced and _usable(problem.cost)


def solve(steps: Steps, state: State) -> Solution | None:
    """The outer steps from `state` on, as `proximal.solve` takes them, within rounding; None where Triton fails.

    Nothing is captured and nothing waited for: a step is three launches and a few products of matrices, and samples
    that are done leave their kernels at once.
    """
    try:
        return _solve(steps, state)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler of another machine may raise
        _refuse(error)
        return None


def sinkhorn(
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
    """`sinkhorn_log`, argument for argument and within rounding, in one launch where Triton can.

    Every sample stops for itself; where Triton is missing or fails (said once), torch does the steps.
    """
    arguments = (kernel, log_a, log_b, f, g, epsilon, rho_a, rho_b, iterations, slack)
    if _usable(kernel):
        try:
            return _sinkhorn(*arguments)
        except Exception as error:
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                raise  # the capture is lost; its caller goes on without one
            _refuse(error)
    return sinkhorn_log(*arguments)


def _refuse(error: Exception) -> None:
    """Say once that Triton can't, and ask it no more."""
    global _refused
    _refused = True
    logging.getLogger(__name__).warning(
        "transport: Triton's kernels can't run here, the solver goes on without, more slowly: %s", error
    )


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _usable(matrix: Tensor) -> bool:
    """Whether the kernels take matrices like this one (B, T, U)."""
    on_gpu = matrix.device.type == "cuda" and matrix.dtype == torch.float32
    return on_gpu and not _refused and matrix.shape[2] <= WIDEST and _has_triton()


def _shape(matrix: Tensor) -> dict[str, int]:
    """A kernel's tile and threads for matrices (B, T, U)."""
    columns = max(16, _power_of_two(matrix.shape[2]))
    rows = min(_power_of_two(matrix.shape[1]), max(1, TILE // columns))
    return {"ROWS": rows, "COLUMNS": columns, "num_warps": max(1, min(16, rows * columns // 512))}


def _power_of_two(size: int) -> int:
    """The least power of two that is no less."""
    return 1 << max(0, size - 1).bit_length()


def _on(device: torch.device) -> Any:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _solve(steps: Steps, state: State) -> Solution:
    from espnet_gmot.transport.fused_kernels import advance, judge, round_plan

    problem, options = steps.problem, steps.options
    matrix = problem.cost.contiguous()
    batch, frames, tokens = matrix.shape
    size, shape, grid = (frames, tokens), _shape(matrix), (batch,)
    a, b, linear, epsilon, scale, log_a, log_b = (
        part.contiguous()
        for part in (
            problem.acoustic_weights,
            problem.linguistic_weights,
            steps.linear,
            steps.epsilon,
            steps.scale,
            steps.log_a,
            steps.log_b,
        )
    )
    alpha, tolerance = float(options.alpha), float(options.tolerance)
    log_plan, plan, f, g = (part.clone(memory_format=torch.contiguous_format) for part in
                            (state.log_plan, state.plan, state.f, state.g))  # fmt: skip
    change, error, count = state.change.clone(), state.error.clone(), state.iterations.int()
    done, resting = state.done.int(), torch.empty_like(count)
    kernel, rounded = torch.empty_like(plan), torch.empty_like(plan)
    node, energy, gap = (torch.empty_like(change) for _ in range(3))
    base = log_plan if options.method == "proximal" else steps.base.contiguous()
    # what is rounded has the marginals a and b
    squares_a = problem.acoustic.hadamard(problem.acoustic, a).contiguous()
    squares_b = problem.linguistic.hadamard(problem.linguistic, b).contiguous()
    judged = options.method == "proximal" and tolerance > 0.0

    def assessed(wanted: Tensor, keep: bool, gromov: bool) -> None:
        """Round the wanted samples' plans and assess them."""
        round_plan[grid](plan, a, b, wanted, rounded, *size, **shape)
        product = _product(problem, rounded) if gromov else rounded  # not looked at
        judge[grid](
            matrix, linear, product, squares_a, squares_b, rounded, f, g, a, b, epsilon, scale, wanted,
            plan, done, node, energy, gap, *size, alpha, tolerance,
            GROMOV=gromov, KEEP=keep, **shape,
        )  # fmt: skip

    with _on(matrix.device):
        watch = cuda.Watch(done)
        for number in range(options.outer_iterations):
            advance[grid](
                linear, _product(problem, plan) if alpha > 0.0 else linear, base, epsilon, log_a, log_b, kernel,
                log_plan, plan, f, g, change, error, count, resting, done, *size, options.inner_iterations,
                float(options.temperature(number)), alpha, tolerance,
                GROMOV=alpha > 0.0, STOPS=tolerance > 0.0, **shape,
            )  # fmt: skip
            if judged:
                assessed(resting, True, alpha > 0.0)
            else:
                done |= resting
            if watch(done):
                break
        assessed(torch.ones_like(done), False, True)
    return Solution(rounded, node, energy, error, gap, count.long(), done > 0)


def _product(problem: Problem, plan: Tensor) -> Tensor:
    """A·plan·L, (B, T, U)."""
    if isinstance(problem.linguistic, DenseEdges):  # symmetric, so no transposition is needed
        return problem.acoustic.apply(plan) @ problem.linguistic.matrix
    return problem.linguistic.apply(problem.acoustic.apply(plan).mT).mT.contiguous()


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
) -> tuple[Tensor, Tensor]:
    from espnet_gmot.transport.fused_kernels import scale

    flat = [tensor.contiguous() for tensor in (kernel, log_a, log_b, f, g, epsilon)]
    new_f, new_g = torch.empty_like(flat[3]), torch.empty_like(flat[4])
    with _on(kernel.device):
        scale[(kernel.shape[0],)](
            *flat,
            flat[5] if slack is None else slack.contiguous(),
            new_f,
            new_g,
            *kernel.shape[1:],
            0.0 if math.isinf(rho_a) else rho_a,
            0.0 if math.isinf(rho_b) else rho_b,
            iterations,
            EXACT_A=math.isinf(rho_a),
            EXACT_B=math.isinf(rho_b),
            STOPS=slack is not None,
            **_shape(kernel),
        )
    return new_f, new_g
