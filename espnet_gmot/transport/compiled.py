"""The numba backend: the outer loop of one sample, the parallel loop over samples, and its torch wrapper."""

from __future__ import annotations

import hashlib
import math
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from espnet_gmot.transport import kernels as k
from espnet_gmot.transport.edges import CosineEdges, DenseEdges, SumEdges, TemporalEdges
from espnet_gmot.transport.problem import Problem
from espnet_gmot.transport.proximal import INNER_SHARE, WARM_MIX, Solution
from espnet_gmot.transport.vectors import FAST

__all__ = ["solve", "supports"]

F32 = np.float32
Sample = namedtuple("Sample", "cost prior given dense low low_t temporal edges a b epsilon square")
Settings = namedtuple("Settings", "alpha relative proximal inner tolerance rho_a rho_b")
Work = namedtuple("Work", "linear logs plan first kernel middle coupling x z f p log_a square_a y g q log_b square_b")
DENSE_LIMIT = 2048  # the side up to which factored edges may be made dense


@njit(fastmath=FAST, error_model="numpy")
def _transposed(matrix, rows, columns, out):
    """out[:rows, :columns] = matrix[:columns, :rows]ᵀ, eight columns at a time."""
    for start in range(0, columns, 8):
        for u in range(rows):
            for t in range(start, min(start + 8, columns)):
                out[u, t] = matrix[t, u]


@njit(fastmath=FAST, error_model="numpy")
def _load(sample, alpha, w, rows, columns):
    """Transposed linear cost and starting plan; returns ⟨|linear|⟩ under the product plan."""
    a, b, given = sample.a, sample.b, sample.given
    _transposed(sample.cost, rows, columns, w.linear)
    if sample.prior.shape[0]:
        _transposed(sample.prior, rows, columns, w.kernel)  # 0 where there is none
    mass, mean = 0.0, 0.0
    if given.shape[0]:
        _transposed(given, rows, columns, w.plan)
        for u in range(rows):
            for t in range(columns):
                w.plan[u, t] = max(w.plan[u, t], F32(0.0)) if a[t] > 0 and b[u] > 0 else F32(0.0)
                mass += w.plan[u, t]
    kept = F32((1.0 - WARM_MIX) / mass) if mass > 0 else F32(0.0)
    mixed = F32(WARM_MIX) if mass > 0 else F32(1.0)
    for u in range(rows):
        line, row, logs, more, total = w.linear[u], w.plan[u], w.logs[u], w.kernel[u], F32(0.0)
        for t in range(columns):
            inside = a[t] > 0 and b[u] > 0
            line[t] = (F32(1.0) - alpha) * line[t] + more[t] if inside else F32(0.0)
            row[t] = kept * row[t] + mixed * a[t] * b[u]
            logs[t] = w.log_a[t] + w.log_b[u] if inside else k.FLOOR
            total += abs(line[t]) * a[t]
        mean += total * b[u]
    if mass > 0:
        for u in range(rows):
            for t in range(columns):
                if w.plan[u, t] > 0:
                    w.logs[u, t] = F32(math.log(max(w.plan[u, t], F32(1e-37))))
    return mean


@njit(fastmath=FAST, error_model="numpy")
def _step(logs, linear, cross, square_a, square_b, alpha, epsilon, relaxed, rows, columns):
    """logs −= gradient / epsilon."""
    inverse = F32(1.0) / epsilon
    four, two = F32(4.0) * alpha, F32(2.0) * alpha
    for u in range(rows):
        line, lin, cr = logs[u], linear[u], cross[u]
        if alpha == 0:
            for t in range(columns):
                line[t] -= lin[t] * inverse
        elif relaxed:
            for t in range(columns):
                line[t] -= (lin[t] - four * cr[t] + two * (square_a[t] + square_b[u])) * inverse
        else:
            for t in range(columns):
                line[t] -= (lin[t] - four * cr[t]) * inverse


@njit(fastmath=FAST, error_model="numpy")
def _marginals(plan, p, q, rows, columns):
    for t in range(columns):
        p[t] = F32(0.0)
    for u in range(rows):
        total = F32(0.0)
        for t in range(columns):
            total += plan[u, t]
            p[t] += plan[u, t]
        q[u] = total


@njit(fastmath=FAST, error_model="numpy")
def _workspace(sample):
    """Zeroed scratch memory of one sample: the (U, T) matrices have spare rows for the tiled product."""
    columns, rows = sample.a.shape[0], sample.b.shape[0]
    high, wide = -(-rows // 4) * 4, -(-columns // 16) * 16
    m = np.zeros((5, high, wide), dtype=np.float32)
    s = np.zeros((6, wide), dtype=np.float32)
    r = np.zeros((5, high), dtype=np.float32)
    middle = np.zeros((high if sample.temporal.shape[0] else 0, sample.low.shape[1]), dtype=np.float32)
    coupling = np.zeros((high, rows), dtype=np.float32)
    for u in range(rows):
        r[3, u] = F32(math.log(sample.b[u])) if sample.b[u] > 0 else k.FAR
        for v in range(rows):
            coupling[u, v] = sample.edges[u, v]
    for t in range(columns):
        s[4, t] = F32(math.log(sample.a[t])) if sample.a[t] > 0 else k.FAR
    return Work(
        m[0], m[1], m[2], m[3], m[4], middle, coupling,
        s[0], s[1], s[2], s[3], s[4], s[5], r[0], r[1], r[2], r[3], r[4],
    )  # fmt: skip


@njit(fastmath=FAST, error_model="numpy")
def _multiply(sample, w, product_plan):
    """kernel = L · plan · A; of the product plan b·aᵀ it is (L·b)(A·a)ᵀ, which costs no matrix product."""
    s, rows, columns = sample, sample.b.shape[0], sample.a.shape[0]
    if not product_plan:
        k._apply(w.plan, s.dense, s.low, s.low_t, s.temporal, rows, columns, w.first, w.middle)
        k.product(w.coupling, w.first, rows, rows, columns, w.kernel)
        return
    w.kernel[0, :columns] = s.a
    k._apply(w.kernel, s.dense, s.low, s.low_t, s.temporal, 1, columns, w.first, w.middle)
    for u in range(rows):
        row, centre = w.kernel[u], F32(0.0)
        for v in range(rows):
            centre += w.coupling[u, v] * s.b[v]
        for t in range(columns):
            row[t] = centre * w.first[0, t]


@njit(fastmath=FAST, error_model="numpy")
def _node_squares(sample, w):
    """The plan's marginals p and q, and (A∘A)p, (L∘L)q where A is dense."""
    rows, columns = sample.b.shape[0], sample.a.shape[0]
    _marginals(w.plan, w.p, w.q, rows, columns)
    if sample.temporal.shape[0] == 0:
        k._squares(sample.dense, w.p, columns, w.square_a)
    k._squares(w.coupling, w.q, rows, w.square_b)


@njit(fastmath=FAST, error_model="numpy")
def _unit(sample, w, settings, mean):
    """ε in units of the cost: relative to the mean magnitude of the effective cost under the product plan."""
    if not settings.relative:
        return sample.epsilon
    scale = mean
    if settings.alpha > 0:
        square, middle = sample.square[0], sample.square[1]
        if sample.temporal.shape[0] == 0:
            square, middle = k._moments(sample.dense, sample.a, sample.a.shape[0])
        other, centre = k._moments(w.coupling, sample.b, sample.b.shape[0])
        scale += 2.0 * settings.alpha * max(square + other - 2.0 * middle * centre, 0.0)
    return sample.epsilon * (scale if scale > 1e-30 else 1.0)


@njit(fastmath=FAST, error_model="numpy")
def _outer(sample, w, settings, epsilon, slack, first):
    """One proximal step; returns how far the plan moved and its marginal error."""
    rows, columns, rho_a, rho_b = sample.b.shape[0], sample.a.shape[0], settings.rho_a, settings.rho_b
    exact_a, exact_b = math.isinf(rho_a), math.isinf(rho_b)
    powers = (
        F32(1.0) if exact_a else F32(rho_a / (rho_a + epsilon)),
        F32(1.0) if exact_b else F32(rho_b / (rho_b + epsilon)),
    )
    alpha = F32(settings.alpha)
    if alpha > 0:
        _multiply(sample, w, first and sample.given.shape[0] == 0)
        if not (exact_a and exact_b):
            _node_squares(sample, w)
    if not settings.proximal:
        for u in range(rows):
            for t in range(columns):
                w.logs[u, t] = w.log_a[t] + w.log_b[u] if sample.a[t] > 0 and sample.b[u] > 0 else k.FLOOR
    relaxed = not (exact_a and exact_b)
    _step(w.logs, w.linear, w.kernel, w.square_a, w.square_b, alpha, F32(epsilon), relaxed, rows, columns)
    if first:
        k._centre(w.logs, w.f, w.g, sample.a, sample.b, rows, columns)
    inner, tolerance = settings.inner, F32(slack)
    a, b = sample.a, sample.b
    k._exponentiate(w.logs, w.f, w.g, a, b, rows, columns, w.kernel)
    if not k._scale(w.kernel, w.x, w.y, w.z, a, b, w.f, w.g, powers, rows, columns, inner, tolerance):
        k._scale_log(
            w.logs, w.kernel, w.x, w.y, w.z, a, b, w.log_a, w.log_b, w.f, w.g, powers, rows, columns, inner, tolerance
        )
    change, error = k._absorb(w.logs, w.kernel, w.plan, w.x, w.y, w.z, w.f, w.g, b, rows, columns)
    return change, error if exact_b else F32(0.0)


@njit(fastmath=FAST, error_model="numpy")
def _assess(sample, w, settings, epsilon, out, stats):
    """Round the plan, write it to `out`, and its linear part, energy and gap to `stats`."""
    rows, columns = sample.b.shape[0], sample.a.shape[0]
    rho = (settings.rho_a, settings.rho_b)
    k._round(w.plan, sample.a, sample.b, math.isinf(rho[0]), math.isinf(rho[1]), rows, columns, w.z)
    linear = 0.0
    for t in range(columns):
        for u in range(rows):
            out[t, u] = w.plan[u, t]
            if w.plan[u, t] > 0:
                linear += w.plan[u, t] * sample.cost[t, u]
    _multiply(sample, w, False)
    _node_squares(sample, w)
    quadratic = sample.square[0] if sample.temporal.shape[0] else 0.0
    for t in range(columns):
        quadratic += w.square_a[t] * w.p[t]
        w.f[t] *= F32(epsilon)
        if math.isinf(rho[0]) and math.isinf(rho[1]):  # the steps left out what their potentials would have absorbed
            w.f[t] += F32(2.0 * settings.alpha) * w.square_a[t]
    for u in range(rows):
        quadratic += w.square_b[u] * w.q[u]
        crossed = F32(0.0)
        for t in range(columns):
            crossed += w.kernel[u, t] * w.plan[u, t]
        quadratic -= 2.0 * crossed
    alpha = F32(settings.alpha)
    for u in range(rows):
        row = w.kernel[u]
        for t in range(columns):
            row[t] = w.linear[u, t] + alpha * F32(2.0) * (w.square_a[t] + w.square_b[u] - F32(2.0) * row[t])
    stats[0], stats[1] = linear, max(quadratic, 0.0)
    stats[3] = k._gap(w.kernel, w.plan, w.p, w.q, sample.a, sample.b, w.f, rho, rows, columns, w.z)


@njit(fastmath=FAST, error_model="numpy")
def _solve_sample(sample, settings, heat, out, stats):
    """Solve one sample; `stats` receives linear, quadratic, marginal error, gap, iterations, converged."""
    rows, columns = sample.b.shape[0], sample.a.shape[0]
    w, s = _workspace(sample), sample
    mean = _load(s, F32(settings.alpha), w, rows, columns)
    epsilon = max(_unit(sample, w, settings, mean), 1e-30)
    change = 1.0
    for step in range(heat.shape[0]):
        # early plans move far and need no exact marginals
        slack = max(INNER_SHARE * change, 0.1 * settings.tolerance) if settings.tolerance > 0 else 0.0
        change, error = _outer(sample, w, settings, epsilon * heat[step], slack, step == 0)
        stats[2], stats[4] = error, step + 1
        if change <= settings.tolerance and error <= settings.tolerance and heat[step] == 1.0:
            stats[5] = 1.0
            break
    _assess(sample, w, settings, epsilon, out, stats)


def _entry(stamp: str) -> Callable[..., None]:
    """The compiled entry point; numba's disk cache is keyed by the closure too, hence by all kernels' sources."""

    @njit(fastmath=FAST, error_model="numpy", parallel=True, cache=True)
    def solve_batch(order, t_of, u_of, cost, prior, given, dense, low, low_t, temporal, edges, a, b, epsilon, square,
                    settings, heat, out, stats):  # fmt: skip
        """Samples in `order` (longest first), one at a time per thread."""
        if stamp == "":
            return
        for position in prange(order.shape[0]):
            i = order[position]
            t, u = t_of[i], u_of[i]
            sample = Sample(
                cost[i], prior[min(i, prior.shape[0] - 1)], given[min(i, given.shape[0] - 1)],
                dense[min(i, dense.shape[0] - 1)], low[min(i, low.shape[0] - 1)], low_t[min(i, low_t.shape[0] - 1)],
                temporal[min(i, temporal.shape[0] - 1)], edges[i], a[i, :t], b[i, :u], epsilon, square[i],
            )  # fmt: skip
            out[i, t:], out[i, :t, u:] = F32(0.0), F32(0.0)
            _solve_sample(sample, settings, heat, out[i], stats[i])

    return solve_batch


def _stamp() -> str:
    """Digest of everything that is compiled."""
    digest = hashlib.sha256()
    for name in ("compiled.py", "kernels.py", "vectors.py", "proximal.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


_solve_batch = _entry(_stamp())


def supports(problem: Problem) -> bool:
    """Whether the kernels can take a problem: float32 on the CPU, and factored edges where written for."""
    if problem.cost.device.type != "cpu" or problem.cost.dtype != torch.float32:
        return False
    if problem.linguistic.shape[1] > DENSE_LIMIT and not isinstance(problem.linguistic, DenseEdges):
        return False
    return _dense_enough(problem) or (problem.options.balanced and _factors(problem) is not None)


def solve(problem: Problem) -> Solution:
    """`Solution` of a batch by the compiled kernels; bit for bit the same whatever the batch holds."""
    options, batch = problem.options, problem.cost.shape[0]
    out = torch.empty_like(problem.cost, memory_format=torch.contiguous_format)
    stats = np.zeros((batch, 6), dtype=np.float64)
    nothing = np.zeros((1, 0, 0), dtype=np.float32)
    dense, low, low_t, temporal = nothing, nothing, nothing, np.zeros((1, 0), dtype=np.float32)
    square = np.zeros((batch, 2))
    if _dense_enough(problem):
        dense = _array(problem.acoustic.dense())
    else:
        low, low_t, temporal = _factors(problem)
        square = np.stack(
            [_array(v).astype(np.float64) for v in problem.moments(problem.acoustic, problem.acoustic_weights)], 1
        )
    t_of, u_of = problem.acoustic_lengths.numpy(), problem.linguistic_lengths.numpy()
    alive = (problem.acoustic_weights.sum(1) > 0).numpy()
    order = np.argsort(-t_of * t_of * u_of, kind="stable")
    settings = Settings(
        options.alpha,
        options.epsilon_relative,
        options.method == "proximal",
        options.inner_iterations,
        options.tolerance,
        options.rho_acoustic,
        options.rho_linguistic,
    )
    heat = np.array([options.temperature(step) for step in range(options.outer_iterations)])
    threads = torch.get_num_threads()
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
    numba.set_parallel_chunksize(1)  # whoever is free takes the next sample
    _solve_batch(
        order[alive[order]],
        t_of,
        u_of,
        _array(problem.cost),
        nothing if problem.prior is None else _array(problem.prior),
        nothing if problem.initial_plan is None else _array(problem.initial_plan),
        dense,
        low,
        low_t,
        temporal,
        _array(problem.linguistic.dense()),
        _array(problem.acoustic_weights),
        _array(problem.linguistic_weights),
        options.epsilon,
        square,
        settings,
        heat,
        out.numpy(),
        stats,
    )
    numba.set_parallel_chunksize(0)
    if torch.get_num_threads() != threads:  # both may share one OpenMP, whose number numba sets when it starts
        torch.set_num_threads(threads)
    if not alive.all():
        out[torch.from_numpy(~alive)], stats[~alive, 5] = 0.0, 1.0
    columns = torch.from_numpy(stats).to(torch.float32).unbind(1)
    return Solution(out, *columns[:4], columns[4].long(), columns[5] > 0)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy()


def _dense_enough(problem: Problem) -> bool:
    """Dense already, or cheaper dense: a T × T matrix no larger than twice the features it stands for."""
    size = problem.acoustic.shape[1]
    if isinstance(problem.acoustic, DenseEdges):
        return True
    rank = sum(t.shape[-1] for t in problem.acoustic.tensors)
    return size <= DENSE_LIMIT and (size <= 2 * rank or not problem.options.balanced)


def _factors(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """A as low rank, its transpose and (constant, slope, radius, …), (B, …) each; None when a part of A is dense."""
    edges = problem.acoustic
    terms = edges.terms if isinstance(edges, SumEdges) else [(1.0, edges)]
    batch, size = edges.shape
    lows, parts, constant = [], [], torch.zeros(batch)
    for weight, term in terms:
        if isinstance(term, CosineEdges):
            lows.append(term.unit * math.sqrt(weight))
            constant += weight
        elif isinstance(term, TemporalEdges):
            radius = size if term.radius is None else term.radius
            parts += [weight * term.scale.float(), torch.full((batch,), float(radius))]
        else:
            return None
    low = torch.cat(lows, 2) if lows else torch.zeros(batch, size, 0)
    return _array(low), _array(low.mT), _array(torch.stack([constant, *parts], 1))
