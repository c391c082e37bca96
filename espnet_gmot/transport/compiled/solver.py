"""The compiled solver: the outer loop of one sample and the parallel loop over samples; `backend` calls it."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numba import njit, prange

from espnet_gmot.transport.compiled import edges as ce
from espnet_gmot.transport.compiled import kernels as k
from espnet_gmot.transport.compiled.simd import FAST, product
from espnet_gmot.transport.proximal import INNER_SHARE, WARM_MIX

__all__ = ["Settings", "solve_batch"]

F32 = np.float32
Sample = namedtuple("Sample", "cost prior given dense low low_t temporal edges a b epsilon")
Settings = namedtuple("Settings", "alpha relative proximal inner tolerance rho_a rho_b")
Work = namedtuple("Work", "linear logs plan first kernel middle coupling x z f p log_a square_a y g q log_b square_b")


@njit(fastmath=FAST, error_model="numpy")
def _transposed(matrix, rows, columns, out):
    """out[:rows, :columns] = matrix[:columns, :rows]ᵀ, eight columns at a time."""
    for start in range(0, columns, 8):
        for u in range(rows):
            for t in range(start, min(start + 8, columns)):
                out[u, t] = matrix[t, u]


@njit(fastmath=FAST, error_model="numpy")
def _load(sample, alpha, w, rows, columns):
    """Transposed linear cost and the product plan; returns ⟨|linear|⟩ under it."""
    a, b, mean = sample.a, sample.b, 0.0
    _transposed(sample.cost, rows, columns, w.linear)
    if sample.prior.shape[0]:
        _transposed(sample.prior, rows, columns, w.kernel)  # 0 where there is none
    for u in range(rows):
        line, row, logs, more, total = w.linear[u], w.plan[u], w.logs[u], w.kernel[u], F32(0.0)
        for t in range(columns):
            inside = a[t] > 0 and b[u] > 0
            line[t] = (F32(1.0) - alpha) * line[t] + more[t] if inside else F32(0.0)
            row[t] = a[t] * b[u]
            logs[t] = w.log_a[t] + w.log_b[u] if inside else k.FLOOR
            total += abs(line[t]) * a[t]
        mean += total * b[u]
    return mean


@njit(fastmath=FAST, error_model="numpy")
def _warm(sample, w, rows, columns):
    """Mix a given plan into the product plan, which stays where the given one has no mass."""
    given, mass = w.kernel, 0.0
    _transposed(sample.given, rows, columns, given)
    for u in range(rows):
        for t in range(columns):
            given[u, t] = max(given[u, t], F32(0.0)) if w.plan[u, t] > 0 else F32(0.0)
            mass += given[u, t]
    if mass > 0:
        share = F32((1.0 - WARM_MIX) / mass)
        for u in range(rows):
            for t in range(columns):
                if w.plan[u, t] > 0:
                    w.plan[u, t] = F32(WARM_MIX) * w.plan[u, t] + share * given[u, t]
                    w.logs[u, t] = F32(math.log(max(w.plan[u, t], F32(1e-37))))


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
def _multiply(sample, w):
    """kernel = L · plan · A."""
    s, rows, columns = sample, sample.b.shape[0], sample.a.shape[0]
    ce.apply(w.plan, s.dense, s.low, s.low_t, s.temporal, rows, columns, w.first, w.middle)
    product(w.coupling, w.first, rows, rows, columns, w.kernel)


@njit(fastmath=FAST, error_model="numpy")
def _multiply_product_plan(sample, w):
    """kernel = L · b·aᵀ · A = (L·b)(A·a)ᵀ, which costs no matrix product."""
    s, rows, columns = sample, sample.b.shape[0], sample.a.shape[0]
    w.kernel[0, :columns] = s.a
    ce.apply(w.kernel, s.dense, s.low, s.low_t, s.temporal, 1, columns, w.first, w.middle)
    for u in range(rows):
        row, centre = w.kernel[u], F32(0.0)
        for v in range(rows):
            centre += w.coupling[u, v] * s.b[v]
        for t in range(columns):
            row[t] = centre * w.first[0, t]


@njit(fastmath=FAST, error_model="numpy")
def _node_squares(sample, w):
    """(A∘A)p and (L∘L)q of the plan's marginals p and q."""
    s, rows, columns = sample, sample.b.shape[0], sample.a.shape[0]
    ce.squares(s.dense, s.low, s.low_t, s.temporal, w.p, columns, w.square_a)
    ce.squares(w.coupling, s.low, s.low_t, s.temporal[:0], w.q, rows, w.square_b)


@njit(fastmath=FAST, error_model="numpy")
def _energy(w, rows, columns):
    """The GW energy of a plan with marginals p and q, its squares and its kernel L · plan · A in place."""
    total = 0.0
    for t in range(columns):
        total += w.square_a[t] * w.p[t]
    for u in range(rows):
        total += w.square_b[u] * w.q[u]
        crossed = F32(0.0)
        for t in range(columns):
            crossed += w.kernel[u, t] * w.plan[u, t]
        total -= 2.0 * crossed
    return max(total, 0.0)


@njit(fastmath=FAST, error_model="numpy")
def _unit(sample, w, alpha, mean):
    """The unit of a relative ε and of the gap: the mean magnitude of the effective cost under the product plan.

    Leaves the product plan's kernel and squares behind.
    """
    scale, rows, columns = mean, sample.b.shape[0], sample.a.shape[0]
    if alpha > 0:
        w.p[:columns], w.q[:rows] = sample.a, sample.b
        _node_squares(sample, w)
        _multiply_product_plan(sample, w)
        scale += 2.0 * alpha * _energy(w, rows, columns)
    return scale if scale > 1e-30 else 1.0


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
        if not first or sample.given.shape[0]:  # a first product plan's kernel is there already
            _multiply(sample, w)
        if not (exact_a and exact_b):
            _marginals(w.plan, w.p, w.q, rows, columns)
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
    balanced = math.isinf(rho[0]) and math.isinf(rho[1])
    _marginals(w.plan, w.p, w.q, rows, columns)
    _multiply(sample, w)
    # balanced marginals are those that the squares were made of
    if not balanced or settings.alpha == 0:
        _node_squares(sample, w)
    stats[0], stats[1] = linear, _energy(w, rows, columns)
    for t in range(columns):
        w.x[t] = w.f[t] * F32(epsilon)
        if balanced:  # the steps left out what their potentials would have absorbed
            w.x[t] += F32(2.0 * settings.alpha) * w.square_a[t]
    alpha = F32(settings.alpha)
    for u in range(rows):
        row = w.kernel[u]
        for t in range(columns):
            row[t] = w.linear[u, t] + alpha * F32(2.0) * (w.square_a[t] + w.square_b[u] - F32(2.0) * row[t])
    stats[3] = k._gap(w.kernel, w.plan, w.p, w.q, sample.a, sample.b, w.x, rho, rows, columns, w.z)


@njit(fastmath=FAST, error_model="numpy")
def _solve_sample(sample, settings, heat, out, stats):
    """Solve one sample; `stats` receives linear, quadratic, marginal error, gap, iterations, converged."""
    rows, columns = sample.b.shape[0], sample.a.shape[0]
    w, s = _workspace(sample), sample
    mean = _load(s, F32(settings.alpha), w, rows, columns)
    scale = _unit(s, w, settings.alpha, mean)
    epsilon = max(s.epsilon * (scale if settings.relative else 1.0), 1e-30)
    if s.given.shape[0]:
        _warm(s, w, rows, columns)
    change = 1.0
    for step in range(heat.shape[0]):
        # early plans move far and need no exact marginals
        slack = max(INNER_SHARE * change, 0.1 * settings.tolerance) if settings.tolerance > 0 else 0.0
        change, error = _outer(sample, w, settings, epsilon * heat[step], slack, step == 0)
        stats[2], stats[4] = error, step + 1
        if change <= settings.tolerance and error <= settings.tolerance and heat[step] == 1.0:
            _assess(sample, w, settings, epsilon, out, stats)
            # a plan may rest where mass that it should have has all but vanished, and take long to come back
            if not settings.proximal or stats[3] <= settings.tolerance * scale:
                stats[5] = 1.0
                return
    _assess(sample, w, settings, epsilon, out, stats)


def _stamp() -> str:
    """Digest of everything that is compiled: numba's disk cache is keyed by what a closure holds too."""
    digest = hashlib.sha256()
    for name in ("solver.py", "edges.py", "kernels.py", "simd.py", "../proximal.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


def _entry(stamp: str, cache: bool = True) -> Callable[..., None]:
    """The entry point, compiled when first called, or read from the disk cache."""

    def solve_batch(order, t_of, u_of, cost, prior, given, dense, low, low_t, temporal, edges, a, b, epsilon,
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
                temporal[min(i, temporal.shape[0] - 1)], edges[i], a[i, :t], b[i, :u], epsilon,
            )  # fmt: skip
            out[i, t:], out[i, :t, u:] = F32(0.0), F32(0.0)
            _solve_sample(sample, settings, heat, out[i], stats[i])

    return njit(fastmath=FAST, error_model="numpy", parallel=True, cache=cache)(solve_batch)


def _cached_entry() -> Callable[..., None]:
    try:
        return _entry(_stamp())
    except RuntimeError as error:  # numba found no folder to write to
        logging.getLogger(__name__).warning(
            "transport: the compiled kernels can't be kept on disk (%s), so that every process compiles them again: "
            "set NUMBA_CACHE_DIR to a folder that you may write to",
            error,
        )
        return _entry(_stamp(), cache=False)


solve_batch = _cached_entry()
