"""Compiled products with a sample's edges: A·plan and (A∘A)·p, A dense or factored, never more than one thread.

Factored edges are A = constant + E − low·lowᵀ: cosine edges give the constant and the low-rank part, temporal edges
E = Σ slope·min(|i − k|, radius). `temporal` holds constant, slope, radius, slope, radius, …; empty for dense edges.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from espnet_gmot.transport.compiled.simd import FAST, product

__all__ = ["apply", "squares"]

F32 = np.float32


@njit(fastmath=FAST, error_model="numpy")
def _temporal(plan, rows, columns, factor, power, radius, out):
    """out += factor·plan @ min(|i − k|, radius)^power, power 1 or 2, by running sums from the left and the right."""
    for u in range(rows):
        row, line = plan[u], out[u]
        for backward in range(2):
            mass, far, square = 0.0, 0.0, 0.0  # within the radius behind i: mass, and Σ distance, distance² to i
            beyond = 0.0
            for step in range(columns):
                i = columns - 1 - step if backward else step
                reach = far if power == 1 else square
                line[i] += F32(factor * (reach + beyond * radius**power))
                mass += row[i]
                square += 2.0 * far + mass
                far += mass
                if step >= radius:
                    gone = row[i + radius] if backward else row[i - radius]
                    # it is `radius` behind the next node but one step: leave the window, join the saturated rest
                    mass -= gone
                    far -= gone * (radius + 1.0)
                    square -= gone * (radius + 1.0) ** 2
                    beyond += gone


@njit(fastmath=FAST, error_model="numpy")
def apply(plan, dense, low, low_t, temporal, rows, columns, out, middle):
    """out = plan · A; `middle` is scratch of the plan's rows times the rank."""
    if temporal.shape[0] == 0:
        product(plan, dense, rows, columns, columns, out)
        return
    rank = low.shape[1]
    product(plan, low, rows, columns, rank, middle)
    product(middle, low_t, rows, rank, columns, out)
    for u in range(rows):
        mass = F32(0.0)
        for t in range(columns):
            mass += plan[u, t]
        for t in range(columns):
            out[u, t] = temporal[0] * mass - out[u, t]
    for term in range(1, temporal.shape[0], 2):
        _temporal(plan, rows, columns, temporal[term], 1, int(temporal[term + 1]), out)


@njit(fastmath=FAST, error_model="numpy")
def squares(dense, low, low_t, temporal, weights, columns, out):
    """out = (A∘A)w."""
    if temporal.shape[0] == 0:
        for i in range(columns):
            total, row = F32(0.0), dense[i]
            for k in range(columns):
                total += row[k] * row[k] * weights[k]
            out[i] = total
        return
    constant, line, sums = (
        temporal[0],
        np.zeros((1, columns), dtype=np.float32),
        np.zeros((1, columns), dtype=np.float32),
    )
    line[0, :] = weights[:columns]
    mass = F32(0.0)
    for t in range(columns):
        mass += weights[t]
    for one in range(1, temporal.shape[0], 2):
        _temporal(line, 1, columns, F32(2.0) * constant * temporal[one], 1, int(temporal[one + 1]), sums)
        for two in range(1, temporal.shape[0], 2):
            # min(d, r)·min(d, R) = min(d, r)² + r·(min(d, R) − min(d, r)) where r ≤ R
            near, far = min(temporal[one + 1], temporal[two + 1]), max(temporal[one + 1], temporal[two + 1])
            slope = temporal[one] * temporal[two]
            _temporal(line, 1, columns, slope, 2, int(near), sums)
            if near < far:
                _temporal(line, 1, columns, slope * near, 1, int(far), sums)
                _temporal(line, 1, columns, -slope * near, 1, int(near), sums)
    for t in range(columns):
        out[t] = sums[0, t] + constant * constant * mass
    if low.shape[1]:
        _low_rank_squares(low, low_t, temporal, weights, columns, out)


@njit(fastmath=FAST, error_model="numpy")
def _low_rank_squares(low, low_t, temporal, weights, columns, out):
    """out += (B∘B)w − 2((constant + E)∘B)w with B = low·lowᵀ, through lowᵀ·diag(w)·low."""
    rank = low.shape[1]
    high = -(-rank // 4) * 4
    weighted, more = np.zeros((high, columns), dtype=np.float32), np.zeros((high, columns), dtype=np.float32)
    mixed = np.zeros((high, rank), dtype=np.float32)
    for r in range(rank):
        total, row = F32(0.0), weighted[r]
        for t in range(columns):
            row[t] = low_t[r, t] * weights[t]
            total += row[t]
        for t in range(columns):
            more[r, t] = F32(-2.0) * temporal[0] * total
    for term in range(1, temporal.shape[0], 2):
        _temporal(weighted, rank, columns, F32(-2.0) * temporal[term], 1, int(temporal[term + 1]), more)
    product(weighted, low, rank, columns, rank, mixed)
    product(mixed, low_t, rank, rank, columns, weighted)
    for r in range(rank):
        for t in range(columns):
            out[t] += low_t[r, t] * (weighted[r, t] + more[r, t])
