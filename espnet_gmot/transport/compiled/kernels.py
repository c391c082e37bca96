"""Compiled CPU kernels of the solver: one sample per thread, float32, everything in cache, no BLAS.

Within a sample all matrices are transposed to (U, T), so that the long axis is the contiguous one. Sinkhorn scales the
kernel itself, around potentials that are absorbed at every outer step; when a scaling leaves the safe range, that step
is done again in the log domain. Names: weights `a` (T), `b` (U), potentials `f`, `g`, scalings `x`, `y`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from espnet_gmot.transport.compiled.simd import FAST, add_rows, dot_rows, exp32

F32 = np.float32
SAFE = F32(1e13)  # scalings beyond it, or below its inverse, send a step to the log domain
FLOOR = F32(-100.0)
FAR = F32(-1e30)


@njit(fastmath=FAST, error_model="numpy")
def _centre(logs, f, g, a, b, rows, columns):
    """Potentials such that every column and row of exp(logs + f + g) has 1 as its largest entry."""
    for t in range(columns):
        f[t] = FAR if a[t] > 0 else F32(0.0)
    for u in range(rows):
        if b[u] > 0:
            row = logs[u]
            for t in range(columns):
                f[t] = max(f[t], row[t]) if a[t] > 0 else F32(0.0)
    for t in range(columns):
        f[t] = -f[t]
    for u in range(rows):
        if b[u] > 0:
            highest, row = FAR, logs[u]
            for t in range(columns):
                highest = max(highest, row[t] + f[t] if a[t] > 0 else FAR)
            g[u] = -highest


@njit(fastmath=FAST, error_model="numpy")
def _exponentiate(logs, f, g, a, b, rows, columns, kernel):
    """kernel = exp(logs + f + g), exactly 0 where a weight is 0: nothing large may ever meet a zero scaling there."""
    for u in range(rows):
        line, row = logs[u], kernel[u]
        if b[u] > 0:
            for t in range(columns):
                row[t] = exp32(line[t] + f[t] + g[u]) if a[t] > 0 else F32(0.0)
        else:
            row[:] = F32(0.0)


@njit(fastmath=FAST, error_model="numpy")
def _relaxed(weight, total, potential, power):
    """New scaling of a KL-relaxed side, around an absorbed potential."""
    goal = power * (math.log(weight) - math.log(max(total, F32(1e-37))) + potential)
    return F32(math.exp(min(max(goal - potential, -87.0), 87.0)))


@njit(fastmath=FAST, error_model="numpy")
def _scale(kernel, x, y, z, a, b, f, g, powers, rows, columns, iterations, tolerance):
    """Sinkhorn on the kernel: scalings x (columns of it) and y (rows); False when they left the safe range."""
    high, wide = kernel.shape
    fresh = np.zeros(high, dtype=np.float32)
    for t in range(wide):
        x[t] = F32(1.0) if t < columns and a[t] > 0 else F32(0.0)
    for step in range(iterations):
        z[:] = F32(0.0)
        error = F32(0.0)
        for block in range(0, high, 4):
            dot_rows(kernel, x, fresh, block)
            for u in range(block, min(block + 4, rows)):
                old = y[u]
                if b[u] <= 0:
                    y[u] = F32(0.0)
                elif powers[1] == 1:
                    y[u] = b[u] / fresh[u]
                    error += abs(old * fresh[u] - b[u])
                else:
                    y[u] = _relaxed(b[u], fresh[u], g[u], powers[1])
                    error += b[u] * abs(old / y[u] - F32(1.0))
            add_rows(kernel, y, z, block)
        if powers[0] == 1:
            for t in range(columns):
                x[t] = a[t] / max(z[t], F32(1e-37))
        else:
            for t in range(columns):
                x[t] = _relaxed(a[t], z[t], f[t], powers[0]) if a[t] > 0 else F32(0.0)
        if step > 0 and error <= tolerance:
            break
    low, top = SAFE, F32(0.0)
    for t in range(columns):
        if a[t] > 0:
            low, top = min(low, x[t]), max(top, x[t])
            if not x[t] < SAFE:
                return False
    for u in range(rows):
        if b[u] > 0:
            low, top = min(low, y[u]), max(top, y[u])
            if not y[u] < SAFE:
                return False
    return low > F32(1.0) / SAFE and top < SAFE


@njit(fastmath=FAST, error_model="numpy")
def _scale_log(logs, kernel, x, y, z, a, b, log_a, log_b, f, g, powers, rows, columns, iterations, tolerance):
    """The same Sinkhorn in the log domain: updates f and g, and leaves kernel = exp(logs + f + g), x = y = 1."""
    for step in range(iterations):
        error = F32(0.0)
        for t in range(columns):
            x[t], z[t] = FAR, F32(0.0)
        for u in range(rows):
            row, highest, total = logs[u], FAR, F32(0.0)
            for t in range(columns):
                highest = max(highest, row[t] + f[t] if a[t] > 0 else FAR)
            for t in range(columns):
                total += exp32(row[t] + f[t] - highest) if a[t] > 0 else F32(0.0)
            if b[u] > 0:
                old = g[u]
                g[u] = powers[1] * (log_b[u] - highest - F32(math.log(total)))
                error += b[u] * abs(exp32(old - g[u]) - F32(1.0))
                for t in range(columns):
                    x[t] = max(x[t], row[t] + g[u])
        for u in range(rows):
            if b[u] > 0:
                row = logs[u]
                for t in range(columns):
                    z[t] += exp32(row[t] + g[u] - x[t])
        for t in range(columns):
            if a[t] > 0:
                f[t] = powers[0] * (log_a[t] - x[t] - F32(math.log(z[t])))
        if step > 0 and error <= tolerance:
            break
    for t in range(columns):
        x[t] = F32(1.0) if a[t] > 0 else F32(0.0)
    for u in range(rows):
        y[u] = F32(1.0) if b[u] > 0 else F32(0.0)
    _exponentiate(logs, f, g, a, b, rows, columns, kernel)


@njit(fastmath=FAST, error_model="numpy")
def _absorb(logs, kernel, plan, x, y, z, f, g, b, rows, columns):
    """New plan and its logarithm; returns how far the plan moved and its error on the rows' marginal, both L1."""
    for t in range(columns):
        z[t] = F32(math.log(x[t])) if x[t] > 0 else F32(0.0)
        f[t] += z[t]
    change, error = F32(0.0), F32(0.0)
    for u in range(rows):
        if y[u] > 0:
            g[u] += F32(math.log(y[u]))
        row, line, old, total = kernel[u], logs[u], plan[u], F32(0.0)
        for t in range(columns):
            line[t] = max(line[t] + (f[t] + g[u]), FLOOR)
        for t in range(columns):
            fresh = row[t] * x[t] * y[u]
            change += abs(fresh - old[t])
            total += fresh
            old[t] = fresh
        error += abs(total - b[u])
    return change, error


@njit(fastmath=FAST, error_model="numpy")
def _round(plan, a, b, exact_a, exact_b, rows, columns, z):
    """Altschuler, Weed and Rigollet's rounding; with one exact side, that side is scaled."""
    both = exact_a and exact_b
    if exact_a:
        for t in range(columns):
            z[t] = F32(0.0)
        for u in range(rows):
            for t in range(columns):
                z[t] += plan[u, t]
        for t in range(columns):
            if z[t] <= F32(1e-30) and not both:
                for u in range(rows):
                    plan[u, t] = a[t] * b[u]
                z[t] = a[t]
            ratio = a[t] / max(z[t], F32(1e-30))
            z[t] = min(ratio, F32(1.0)) if both else ratio
        for u in range(rows):
            for t in range(columns):
                plan[u, t] *= z[t]
    if not exact_b:
        return
    for t in range(columns):
        z[t] = a[t]
    missing = np.zeros(rows, dtype=np.float32)
    for u in range(rows):
        total = F32(0.0)
        for t in range(columns):
            total += plan[u, t]
        if total <= F32(1e-30) and not both:
            for t in range(columns):
                plan[u, t] = a[t] * b[u]
            total = b[u]
        ratio = b[u] / max(total, F32(1e-30))
        ratio = min(ratio, F32(1.0)) if both else ratio
        missing[u] = max(b[u] - total * ratio, F32(0.0))
        for t in range(columns):
            plan[u, t] *= ratio
            z[t] -= plan[u, t]
    if both:
        short = F32(0.0)
        for t in range(columns):
            z[t] = max(z[t], F32(0.0))
            short += z[t]
        for u in range(rows):
            share = missing[u] / max(short, F32(1e-30))
            for t in range(columns):
                plan[u, t] += share * z[t]


@njit(fastmath=FAST, error_model="numpy")
def _kl(p, q, size):
    """Σ p log(p/q) − p + q where q has mass."""
    total = 0.0
    for i in range(size):
        if q[i] > 0:
            total += q[i] - p[i]
            if p[i] > 0:
                total += p[i] * math.log(p[i] / q[i])
    return total


@njit(fastmath=FAST, error_model="numpy")
def _conjugate(potential, weights, size, rho):
    """Value of a dual potential under a marginal that is exact (rho = inf) or relaxed in KL."""
    total = 0.0
    for i in range(size):
        if weights[i] > 0:
            if math.isinf(rho):
                total += potential[i] * weights[i]
            elif rho > 0:
                total -= rho * weights[i] * (math.exp(min(-potential[i] / rho, 80.0)) - 1.0)
    return total


@njit(fastmath=FAST, error_model="numpy")
def _gap(gradient, plan, p, q, a, b, f, rho, rows, columns, z):
    """Duality gap of the linearised problem: c-transforms of f make feasible potentials."""
    primal = 0.0
    g = np.zeros(rows, dtype=np.float32)
    for t in range(columns):
        z[t] = -FAR
    for u in range(rows):
        lowest, total = -FAR, F32(0.0)
        for t in range(columns):
            total += gradient[u, t] * plan[u, t]
            lowest = min(lowest, gradient[u, t] - f[t] if a[t] > 0 else -FAR)
        primal += total
        if b[u] > 0:
            g[u] = lowest if rho[1] > 0 else F32(0.0)  # a free marginal has no price
            for t in range(columns):
                z[t] = min(z[t], gradient[u, t] - g[u])
    dual = _conjugate(z, a, columns, rho[0]) + _conjugate(g, b, rows, rho[1])
    if not math.isinf(rho[0]) and rho[0] > 0:
        primal += rho[0] * _kl(p, a, columns)
    if not math.isinf(rho[1]) and rho[1] > 0:
        primal += rho[1] * _kl(q, b, rows)
    return max(primal - dual, 0.0)
