"""The solver as few large kernels of a GPU, by Triton, which comes with torch's builds for GPUs.

What torch would launch a thousand kernels for, each with less work than its launch costs, are three here for an outer
step with exact marginals, and one for the Sinkhorn of a step with relaxed ones.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from espnet_gmot.transport import cuda
from espnet_gmot.transport.edges import CosineEdges, DenseEdges, Edges, SumEdges, TemporalEdges
from espnet_gmot.transport.problem import Problem
from espnet_gmot.transport.sinkhorn import NOTHING, sinkhorn_log
from espnet_gmot.transport.solution import Solution

if TYPE_CHECKING:
    from espnet_gmot.transport.proximal import State, Steps

__all__ = ["dense", "scaled", "solve", "takes"]

ENABLED = os.environ.get("GMOT_TRITON", "1") != "0"  # GMOT_TRITON=0 leaves it all to torch
TILE = 8192  # entries of a matrix that one sample's threads hold at a time
LARGEST = 200_000  # T·U beyond which one sample is too much for one multiprocessor, and torch's launches pay
FEW_NODES = 512  # nodes up to which one product with a matrix is quicker than the launches of its factors


def takes(problem: Problem) -> bool:
    """Whether `solve` can take a problem: exact marginals, and matrices that the kernels take."""
    return problem.options.balanced and _usable(problem.cost)


def scaled(kernel: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    """`sinkhorn_log` of these arguments, by Triton where it can, else by torch."""
    return (_scaled if _usable(kernel) else sinkhorn_log)(kernel, *others)


def dense(problem: Problem) -> Problem:
    """The problem with factored edges of few nodes as matrices: one product with each instead of many launches."""
    if problem.cost.device.type == "cpu" or problem.options.alpha == 0.0:
        return problem
    return replace(problem, acoustic=_matrix(problem.acoustic), linguistic=_matrix(problem.linguistic))


class _Matrix(DenseEdges):
    """Dense edges that have their squares at hand, for as long as they are solved for."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix)
        self.square = matrix.square()

    def hadamard_with(self, other: Edges, weights: Tensor) -> Tensor:
        """With itself by the squares."""
        if other is not self:
            return super().hadamard_with(other, weights)
        return (self.square @ weights.unsqueeze(-1)).squeeze(-1)


def _matrix(edges: Edges) -> Edges:
    terms = [term for _, term in edges.terms] if isinstance(edges, SumEdges) else [edges]
    known = all(isinstance(term, (CosineEdges, TemporalEdges, DenseEdges)) for term in terms)
    return _Matrix(edges.dense()) if known and edges.shape[1] <= FEW_NODES else edges


_known: dict[torch.device, bool] = {}


def _works(device: torch.device) -> bool:
    """Whether Triton compiles and runs a kernel on a device, tried once; says where it doesn't.

    What fails later is an error like any other.
    """
    if device not in _known:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return False  # nothing can be tried here
        why = _obstacle(device)
        _known[device] = why is None
        if why is not None:
            logging.getLogger(__name__).warning(
                "transport: Triton can't be used on %s, the solver goes on without, several times more slowly: %s",
                device,
                why,
            )
    return _known[device]


def _obstacle(device: torch.device) -> str | Exception | None:
    """What keeps Triton from running its smallest kernel on a device."""
    if importlib.util.find_spec("triton") is None:
        return "it isn't installed"
    ones = torch.zeros(1, 2, 1, device=device)
    try:
        _scaled(ones.expand(1, 2, 2), ones, ones.mT, ones, ones.mT, ones[:, :1], math.inf, math.inf, 2)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler of another machine may raise
        logging.getLogger(__name__).debug("Triton's first kernel", exc_info=True)
        return error
    return None


def _usable(matrix: Tensor) -> bool:
    """Whether the kernels take matrices like this one (B, T, U)."""
    if matrix.device.type != "cuda" or matrix.dtype != torch.float32 or not ENABLED:
        return False
    return matrix.shape[1] * matrix.shape[2] <= LARGEST and _works(matrix.device)


def _shape(matrix: Tensor) -> dict[str, int]:
    """A kernel's tile and threads for matrices (B, T, U)."""
    columns = max(16, _power_of_two(matrix.shape[2]))
    rows = min(_power_of_two(matrix.shape[1]), max(1, TILE // columns))
    return {"ROWS": rows, "COLUMNS": columns, "num_warps": max(1, min(16, rows * columns // 512))}


def _power_of_two(size: int) -> int:
    """The least power of two that is no less."""
    return 1 << max(0, size - 1).bit_length()


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _packed(*tensors: Tensor) -> Sequence[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


def solve(steps: Steps, state: State) -> Solution:
    """The outer steps from `state` on, which is used up, as `proximal.solve` takes them, within rounding.

    Nothing is captured and nothing waited for: a step is three launches and the products between them, and samples
    that are done leave the kernels at once.
    """
    from espnet_gmot.transport import proximal
    from espnet_gmot.transport.gpu_kernels import advance, judge, round_plan

    problem, options = steps.problem, steps.options
    cost, a, b, linear, epsilon, scale, log_a, log_b = _packed(
        problem.cost, problem.acoustic_weights, problem.linguistic_weights,
        steps.linear, steps.epsilon, steps.scale, steps.log_a, steps.log_b,
    )  # fmt: skip
    plan, f, g, change, error = _packed(state.plan, state.f, state.g, state.change, state.error)
    log_plan = state.log_plan.clone(memory_format=torch.contiguous_format)  # it may be the steps' own base
    count, done = state.iterations.int(), state.done.int()
    batch, frames, tokens = cost.shape
    size, shape, grid = (frames, tokens), _shape(cost), (batch,)
    kernel, rounded, resting = torch.empty_like(plan), torch.zeros_like(plan), torch.empty_like(count)
    node, energy, gap = (torch.empty_like(change) for _ in range(3))
    proximally = options.method == "proximal"
    base = log_plan if proximally else steps.base.contiguous()
    alpha, tolerance = float(options.alpha), float(options.tolerance)
    # what is rounded has the marginals a and b
    squares_a, squares_b = _packed(
        problem.acoustic.hadamard(problem.acoustic, a), problem.linguistic.hadamard(problem.linguistic, b)
    )

    def assess(wanted: Tensor, keep: bool, gromov: bool) -> None:
        """Round the wanted samples' plans and assess them."""
        round_plan[grid](plan, a, b, wanted, rounded, *size, **shape)
        judge[grid](
            cost, linear, _product(problem, rounded) if gromov else rounded, squares_a, squares_b, rounded, f, g, a, b,
            epsilon, scale, wanted, plan, done, node, energy, gap, *size, alpha, tolerance,
            GROMOV=gromov, KEEP=keep, NOTHING=NOTHING, **shape,
        )  # fmt: skip

    with _on(cost.device):
        watch = cuda.Watch(state.done)
        for number in range(options.outer_iterations):
            advance[grid](
                linear, _product(problem, plan) if alpha > 0.0 else linear, base, epsilon, log_a, log_b, kernel,
                log_plan, plan, f, g, change, error, count, resting, done, *size, options.inner_iterations,
                float(options.temperature(number)), alpha, tolerance, proximal.INNER_SHARE, 0.1 * tolerance,
                GROMOV=alpha > 0.0, STOPS=tolerance > 0.0, NOTHING=NOTHING, FLOOR=proximal.FLOOR, **shape,
            )  # fmt: skip
            if proximally:
                assess(resting, True, alpha > 0.0)
            else:
                done |= resting
            if watch(done > 0):
                break
        assess(torch.ones_like(done), False, True)
    return Solution(rounded, node, energy, error, gap, count.long(), done > 0)


def _product(problem: Problem, plan: Tensor) -> Tensor:
    """A·plan·L, (B, T, U)."""
    if isinstance(problem.linguistic, DenseEdges):  # symmetric, so no transposition is needed
        return problem.acoustic.apply(plan) @ problem.linguistic.matrix
    return problem.linguistic.apply(problem.acoustic.apply(plan).mT).mT.contiguous()


def _scaled(
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
    """`sinkhorn_log`, argument for argument and within rounding, in one launch; every sample stops for itself."""
    from espnet_gmot.transport.gpu_kernels import sinkhorn

    kernel, log_a, log_b, f, g, epsilon = _packed(kernel, log_a, log_b, f, g, epsilon)
    new_f, new_g = torch.empty_like(f), torch.empty_like(g)
    with _on(kernel.device):
        sinkhorn[(kernel.shape[0],)](
            kernel, log_a, log_b, f, g, epsilon, epsilon if slack is None else slack.contiguous(), new_f, new_g,
            *kernel.shape[1:], *(0.0 if math.isinf(rho) else float(rho) for rho in (rho_a, rho_b)), iterations,
            EXACT_A=math.isinf(rho_a), EXACT_B=math.isinf(rho_b), STOPS=slack is not None, NOTHING=NOTHING,
            **_shape(kernel),
        )  # fmt: skip
    return new_f, new_g
