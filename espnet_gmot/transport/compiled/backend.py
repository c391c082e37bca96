"""The compiled solver behind the same function: float32 on the CPU, one sample at a time per thread."""

from __future__ import annotations

import math
import threading
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from espnet_gmot.transport.compiled.apart import prepare
from espnet_gmot.transport.compiled.solver import Settings, solve_batch
from espnet_gmot.transport.edges import CosineEdges, DenseEdges, Edges, SumEdges, TemporalEdges
from espnet_gmot.transport.problem import Problem
from espnet_gmot.transport.solution import Solution

_kernels: Any = solve_batch  # numba's dispatcher, which counts and keeps what it compiles

__all__ = ["solve", "supports"]

_lock = threading.Lock()
DENSE_LIMIT = 2048  # the side up to which factored edges may be made dense


def supports(problem: Problem) -> bool:
    """Whether the kernels can take a problem: float32 on the CPU, and edges that are dense or all factored."""
    if problem.cost.device.type != "cpu" or problem.cost.dtype != torch.float32:
        return False
    if problem.linguistic.shape[1] > DENSE_LIMIT and not isinstance(problem.linguistic, DenseEdges):
        return False
    return _dense_enough(problem.acoustic) or _factored(problem.acoustic)


def solve(problem: Problem) -> Solution:
    """`Solution` of a batch by the compiled kernels, bit for bit the same whatever the batch holds.

    Only where the padded length decides whether factored edges are made dense, last bits depend on it.
    """
    options = problem.options
    out = torch.empty_like(problem.cost, memory_format=torch.contiguous_format)
    stats = np.zeros((problem.cost.shape[0], 6), dtype=np.float64)
    t_of, u_of = problem.acoustic_lengths.numpy(), problem.linguistic_lengths.numpy()
    alive = (problem.acoustic_weights.sum(1) > 0).numpy()
    order = np.argsort(-t_of * t_of * u_of, kind="stable")
    arrays = [problem.linguistic.dense(), problem.acoustic_weights, problem.linguistic_weights]
    settings = Settings(
        options.alpha,
        options.epsilon_relative,
        options.method == "proximal",
        options.inner_iterations,
        options.tolerance,
        options.rho_acoustic,
        options.rho_linguistic,
    )
    _run(
        order[alive[order]],
        t_of,
        u_of,
        *(_array(tensor) for tensor in (problem.cost, problem.prior, problem.initial_plan)),
        *_acoustic(problem.acoustic),
        *map(_array, arrays),
        options.epsilon,
        settings,
        np.array([options.temperature(step) for step in range(options.outer_iterations)]),
        out.numpy(),
        stats,
    )
    if not alive.all():
        out[torch.from_numpy(~alive)], stats[~alive, 5] = 0.0, 1.0
    linear, quadratic, error, gap, steps, met = torch.from_numpy(stats).to(torch.float32).unbind(1)
    return Solution(out, linear, quadratic, error, gap, steps.long(), met > 0)


def _run(*arguments: object) -> None:
    """Call the kernels with torch's number of threads; a first call says so when they must be compiled."""
    threads = torch.get_num_threads()
    with _lock:  # not every threading layer of numba's bears two callers
        numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
        numba.set_parallel_chunksize(1)  # whoever is free takes the next sample
        if not _kernels.signatures:
            prepare(_kernels, arguments)
        solve_batch(*arguments)
        numba.set_parallel_chunksize(0)
    if torch.get_num_threads() != threads:  # both may share one OpenMP, whose number numba sets when it starts
        torch.set_num_threads(threads)


def _array(tensor: Tensor | None) -> np.ndarray:
    """A contiguous array, an empty one for nothing."""
    return np.zeros((1, 0, 0), dtype=np.float32) if tensor is None else tensor.contiguous().numpy()


def _dense_enough(edges: Edges) -> bool:
    """Dense already, or cheaper dense: a T × T matrix no larger than twice the features it stands for."""
    if isinstance(edges, DenseEdges):
        return True
    rank = sum(t.shape[-1] for t in edges.tensors)
    return edges.shape[1] <= min(DENSE_LIMIT, 2 * rank)


def _factored(edges: Edges) -> bool:
    """Whether every part of the edges is factored."""
    terms = [term for _, term in edges.terms] if isinstance(edges, SumEdges) else [edges]
    return all(isinstance(term, (CosineEdges, TemporalEdges)) for term in terms)


def _acoustic(edges: Edges) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A as a dense matrix, or as low rank, its transpose and (constant, slope, radius, …); (B, …), the rest empty."""
    if _dense_enough(edges):
        return _array(edges.dense()), _array(None), _array(None), np.zeros((1, 0), dtype=np.float32)
    terms = edges.terms if isinstance(edges, SumEdges) else [(1.0, edges)]
    batch, size = edges.shape
    lows, parts, constant = [], [], torch.zeros(batch)
    for weight, term in terms:
        if isinstance(term, CosineEdges):
            lows.append(term.unit * math.sqrt(weight))
            constant += weight
        else:
            assert isinstance(term, TemporalEdges)
            radius = size if term.radius is None else term.radius
            parts += [weight * term.scale.float(), torch.full((batch,), float(radius))]
    low = torch.cat(lows, 2) if lows else torch.zeros(batch, size, 0)
    return _array(None), _array(low), _array(low.mT), _array(torch.stack([constant, *parts], 1))
