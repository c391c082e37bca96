"""The Triton kernel behind fused.py; imported only where Triton is there."""

import triton
import triton.language as tl

__all__ = ["scale"]


@triton.jit
def _through(
    kernel, log_a, f_from, f_to, g, power_a, frames, tokens, columns, NOTHING, UPDATE: tl.constexpr, ROWS: tl.constexpr
):
    """Once through a sample's kernel, tile by tile: new f (with UPDATE), then the columns' log-sum-exp with it.

    Returns the maximum of every column and the sum of exponentials beside it.
    """
    top = tl.zeros_like(g) + NOTHING
    total = tl.zeros_like(g)
    inside = columns < tokens
    for start in range(0, frames, ROWS):
        rows = start + tl.arange(0, ROWS)
        there = rows < frames
        place = kernel + rows[:, None] * tokens + columns[None, :]
        tile = tl.load(place, mask=there[:, None] & inside[None, :], other=NOTHING)
        if UPDATE:
            weight = tl.load(log_a + rows, mask=there, other=NOTHING)
            values = tile + g[None, :]
            high = tl.max(values, 1)
            low = tl.log(tl.sum(tl.exp(values - high[:, None]), 1)) + high
            f = tl.where(weight > 0.5 * NOTHING, power_a * (weight - low), 0.0)
            tl.store(f_to + rows, f, mask=there)
        else:
            f = tl.load(f_from + rows, mask=there, other=0.0)
        values = tile + f[:, None]
        high = tl.maximum(top, tl.max(values, 0))
        total = total * tl.exp(top - high) + tl.sum(tl.exp(values - high[None, :]), 0)
        top = high
    return top, total


@triton.jit(do_not_specialize=["frames", "tokens", "iterations"])
def scale(
    kernels,
    logs_a,
    logs_b,
    fs,
    gs,
    epsilons,
    slacks,
    new_fs,
    new_gs,
    frames,
    tokens,
    rho_a,
    rho_b,
    iterations,
    EXACT_A: tl.constexpr,
    EXACT_B: tl.constexpr,
    STOPS: tl.constexpr,
    NOTHING: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """`sinkhorn_log` of one sample: kernels (B, T, U), logs_a, fs (B, T), logs_b, gs (B, U), epsilons, slacks (B,)."""
    sample = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    inside = columns < tokens
    log_b = tl.load(logs_b + sample * tokens + columns, mask=inside, other=NOTHING)
    g = tl.load(gs + sample * tokens + columns, mask=inside, other=0.0)
    has_b = log_b > 0.5 * NOTHING
    weight_b = tl.exp(log_b)
    epsilon = tl.load(epsilons + sample)
    slack = tl.load(slacks + sample)
    power_a = 1.0
    if not EXACT_A:
        power_a = rho_a / (rho_a + epsilon)
    power_b = 1.0
    if not EXACT_B:
        power_b = rho_b / (rho_b + epsilon)
    kernel = kernels + sample * frames * tokens
    log_a = logs_a + sample * frames
    f_to = new_fs + sample * frames
    top, total = _through(
        kernel, log_a, fs + sample * frames, f_to, g, power_a, frames, tokens, columns, NOTHING, False, ROWS
    )
    step = 0
    going = True
    while going & (step < iterations):
        fresh = tl.where(has_b, power_b * (log_b - (tl.log(total) + top)), 0.0)
        error = tl.sum(weight_b * tl.abs(tl.exp(tl.minimum(g - fresh, 80.0)) - 1.0), 0)
        g = fresh
        top, total = _through(kernel, log_a, f_to, f_to, g, power_a, frames, tokens, columns, NOTHING, True, ROWS)
        step += 1
        if STOPS:
            going = (step < 2) | (error > slack)
    tl.store(new_gs + sample * tokens + columns, g, mask=inside)
