"""The Triton kernels behind gpu.py, one program a sample; imported only where Triton is there.

Matrices (B, T, U), row vectors (B, T), column vectors (B, U) and numbers (B,) are contiguous float32. A program goes
through its sample in tiles of ROWS x COLUMNS, COLUMNS being no less than U; off its support a log kernel is NOTHING.
Triton's maxima and minima leave NaN out; sums and comparisons keep it, and what isn't a number must not get lost here.
"""

import triton
import triton.language as tl

__all__ = ["advance", "judge", "round_plan", "sinkhorn"]


@triton.jit
def _rows(start, frames, tokens, columns, ROWS: tl.constexpr):
    """A tile's row numbers, their mask, and its places in a matrix with theirs."""
    rows = start + tl.arange(0, ROWS)
    there = rows < frames
    return rows, there, rows[:, None] * tokens + columns[None, :], there[:, None] & (columns < tokens)[None, :]


@triton.jit
def _through(
    kernel, log_a, f_from, f_to, g, power_a, frames, tokens, columns,
    UPDATE: tl.constexpr, NOTHING: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Once through a sample's kernel: new f (with UPDATE), then the columns' log-sum-exp with it.

    Returns the maximum of every column and the sum of exponentials beside it.
    """
    top = tl.zeros_like(g) + NOTHING
    total = tl.zeros_like(g)
    for start in range(0, frames, ROWS):
        rows, there, places, inside = _rows(start, frames, tokens, columns, ROWS)
        tile = tl.load(kernel + places, mask=inside, other=NOTHING)
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


@triton.jit
def _sinkhorn(
    kernel, log_a, log_b, f_from, f_to, g, power_a, power_b, slack, iterations, frames, tokens, columns,
    STOPS: tl.constexpr, NOTHING: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """`sinkhorn_log` of one sample; f is left at f_to, g returned."""
    has_b = log_b > 0.5 * NOTHING
    weight_b = tl.exp(log_b)
    top, total = _through(kernel, log_a, f_from, f_to, g, power_a, frames, tokens, columns, False, NOTHING, ROWS)
    step = 0
    going = True
    while going & (step < iterations):
        fresh = tl.where(has_b, power_b * (log_b - (tl.log(total) + top)), 0.0)
        error = tl.sum(weight_b * tl.abs(tl.exp(tl.minimum(g - fresh, 80.0)) - 1.0), 0)
        g = fresh
        top, total = _through(kernel, log_a, f_to, f_to, g, power_a, frames, tokens, columns, True, NOTHING, ROWS)
        step += 1
        if STOPS:
            going = (step < 2) | (error > slack)
    return g


@triton.jit(do_not_specialize=["frames", "tokens", "iterations"])
def sinkhorn(
    kernels, logs_a, logs_b, fs, gs, epsilons, slacks, new_fs, new_gs, frames, tokens, rho_a, rho_b, iterations,
    EXACT_A: tl.constexpr, EXACT_B: tl.constexpr, STOPS: tl.constexpr, NOTHING: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """`sinkhorn_log`."""
    sample = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    inside = columns < tokens
    log_b = tl.load(logs_b + sample * tokens + columns, mask=inside, other=NOTHING)
    g = tl.load(gs + sample * tokens + columns, mask=inside, other=0.0)
    epsilon = tl.load(epsilons + sample)
    power_a = 1.0
    if not EXACT_A:
        power_a = rho_a / (rho_a + epsilon)
    power_b = 1.0
    if not EXACT_B:
        power_b = rho_b / (rho_b + epsilon)
    row = sample * frames
    g = _sinkhorn(
        kernels + row * tokens, logs_a + row, log_b, fs + row, new_fs + row, g, power_a, power_b,
        tl.load(slacks + sample), iterations, frames, tokens, columns, STOPS, NOTHING, ROWS,
    )  # fmt: skip
    tl.store(new_gs + sample * tokens + columns, g, mask=inside)


@triton.jit(do_not_specialize=["frames", "tokens", "iterations", "heat", "alpha", "tolerance", "share", "least"])
def advance(
    linear, cross, base, epsilons, logs_a, logs_b, kernels, log_plans, plans, fs, gs, changes, errors, counts, resting,
    done, frames, tokens, iterations, heat, alpha, tolerance, share, least,
    GROMOV: tl.constexpr, STOPS: tl.constexpr, NOTHING: tl.constexpr, FLOOR: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """An outer step with exact marginals, in place: kernel, Sinkhorn, the new plan and whether it rests.

    `cross` is A·plan·L, `base` the logarithm that the step is proximal to (the plan's own, or the product plan's);
    Sinkhorn stops at `share` of the last change, or at `least`.
    """
    sample = tl.program_id(0).to(tl.int64)
    if tl.load(done + sample) != 0:
        tl.store(resting + sample, 0)
        return
    columns = tl.arange(0, COLUMNS)
    row, column, matrix = sample * frames, sample * tokens, sample * frames * tokens
    inside_b = columns < tokens
    log_b = tl.load(logs_b + column + columns, mask=inside_b, other=NOTHING)
    has_b = log_b > 0.5 * NOTHING
    g = tl.load(gs + column + columns, mask=inside_b, other=0.0)
    epsilon = tl.load(epsilons + sample) * heat
    poison = 0.0  # NaN where the sample's gradient isn't finite
    for start in range(0, frames, ROWS):
        rows, there, places, inside = _rows(start, frames, tokens, columns, ROWS)
        gradient = tl.load(linear + matrix + places, mask=inside, other=0.0)
        if GROMOV:
            gradient -= 4.0 * alpha * tl.load(cross + matrix + places, mask=inside, other=0.0)
        kernel = tl.load(base + matrix + places, mask=inside, other=NOTHING) - gradient / epsilon
        has_a = tl.load(logs_a + row + rows, mask=there, other=NOTHING) > 0.5 * NOTHING
        support = has_a[:, None] & has_b[None, :]
        kernel = tl.where(support, kernel, NOTHING)
        poison += tl.sum(tl.sum(tl.where(support, gradient * 0.0, 0.0), 1), 0)
        tl.store(kernels + matrix + places, kernel, mask=inside)
    tl.debug_barrier()  # what other threads stored is read from here on
    slack = tl.maximum(tl.load(changes + sample) * share, least)
    g = _sinkhorn(
        kernels + matrix, logs_a + row, log_b, fs + row, fs + row, g, 1.0, 1.0, slack, iterations, frames, tokens,
        columns, STOPS, NOTHING, ROWS,
    )  # fmt: skip
    tl.store(gs + column + columns, g, mask=inside_b)
    tl.debug_barrier()
    change = 0.0
    error = 0.0
    sums = tl.zeros_like(g)
    for start in range(0, frames, ROWS):
        rows, there, places, inside = _rows(start, frames, tokens, columns, ROWS)
        log_a = tl.load(logs_a + row + rows, mask=there, other=NOTHING)
        f = tl.load(fs + row + rows, mask=there, other=0.0)
        kernel = tl.load(kernels + matrix + places, mask=inside, other=NOTHING)
        support = (log_a > 0.5 * NOTHING)[:, None] & has_b[None, :]
        log_plan = tl.where(support, tl.maximum(kernel + f[:, None] + g[None, :], FLOOR) + poison, NOTHING)
        plan = tl.exp(log_plan)
        before = tl.load(plans + matrix + places, mask=inside, other=0.0)
        change += tl.sum(tl.sum(tl.abs(plan - before), 1), 0)
        error += tl.sum(tl.abs(tl.sum(plan, 1) - tl.exp(log_a)), 0)
        sums += tl.sum(plan, 0)
        tl.store(log_plans + matrix + places, log_plan, mask=inside)
        tl.store(plans + matrix + places, plan, mask=inside)
    error += tl.sum(tl.abs(sums - tl.exp(log_b)), 0)
    tl.store(changes + sample, change)
    tl.store(errors + sample, error)
    tl.store(counts + sample, tl.load(counts + sample) + 1)
    tl.store(resting + sample, ((change <= tolerance) & (error <= tolerance) & (heat == 1.0)).to(tl.int32))


@triton.jit
def _capped(target, actual):
    """min(1, target / actual), 0 where nothing is there to scale."""
    return tl.where(actual > 1e-30, tl.minimum(target / tl.maximum(actual, 1e-30), 1.0), 0.0)


@triton.jit
def _fitted(plans, weights_a, start, frames, tokens, columns, ROWS: tl.constexpr):
    """A tile of a plan whose rows have no more than their weights, those weights, and its places with their mask."""
    rows, there, places, inside = _rows(start, frames, tokens, columns, ROWS)
    plan = tl.load(plans + places, mask=inside, other=0.0)
    a = tl.load(weights_a + rows, mask=there, other=0.0)
    return plan * _capped(a, tl.sum(plan, 1))[:, None], a, places, inside


@triton.jit(do_not_specialize=["frames", "tokens"])
def round_plan(plans, weights_a, weights_b, wanted, out, frames, tokens, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """`sinkhorn.round_plan` to both marginals, where wanted."""
    sample = tl.program_id(0).to(tl.int64)
    if tl.load(wanted + sample) == 0:
        return
    columns = tl.arange(0, COLUMNS)
    row, column, matrix = sample * frames, sample * tokens, sample * frames * tokens
    b = tl.load(weights_b + column + columns, mask=columns < tokens, other=0.0)
    plans, weights_a = plans + matrix, weights_a + row
    sums = tl.zeros_like(b)
    for start in range(0, frames, ROWS):
        plan, a, places, inside = _fitted(plans, weights_a, start, frames, tokens, columns, ROWS)
        sums += tl.sum(plan, 0)
    factor = _capped(b, sums)
    missing = 0.0
    sums = tl.zeros_like(b)
    for start in range(0, frames, ROWS):
        plan, a, places, inside = _fitted(plans, weights_a, start, frames, tokens, columns, ROWS)
        plan = plan * factor[None, :]
        missing += tl.sum(tl.maximum(a - tl.sum(plan, 1), 0.0), 0)
        sums += tl.sum(plan, 0)
    share = tl.maximum(b - sums, 0.0) / tl.maximum(missing, 1e-30)
    for start in range(0, frames, ROWS):
        plan, a, places, inside = _fitted(plans, weights_a, start, frames, tokens, columns, ROWS)
        plan = plan * factor[None, :]
        plan += tl.maximum(a - tl.sum(plan, 1), 0.0)[:, None] * share[None, :]
        plan = tl.where((a > 0.0)[:, None] & (b > 0.0)[None, :], plan, 0.0)
        tl.store(out + matrix + places, plan, mask=inside)


@triton.jit
def _half(cross, square_a, square_b, support, places, inside):
    """(A,L)⊗plan of a tile, half the gradient of the energy, 0 off the support."""
    product = tl.load(cross + places, mask=inside, other=0.0)
    return tl.where(support, square_a[:, None] + square_b[None, :] - 2.0 * product, 0.0)


@triton.jit(do_not_specialize=["frames", "tokens", "alpha", "tolerance"])
def judge(
    costs, linear, cross, squares_a, squares_b, rounded, fs, gs, weights_a, weights_b, epsilons, scales, wanted, plans,
    done, nodes, energies, gaps, frames, tokens, alpha, tolerance,
    GROMOV: tl.constexpr, KEEP: tl.constexpr, NOTHING: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """`assess` of rounded plans with exact marginals, where wanted; with KEEP they become the plans.

    Those that are stationary are done then. `cross` is A·rounded·L, `squares_a` (A∘A)a and `squares_b` (L∘L)b.
    """
    sample = tl.program_id(0).to(tl.int64)
    if tl.load(wanted + sample) == 0:
        return
    columns = tl.arange(0, COLUMNS)
    row, column, matrix = sample * frames, sample * tokens, sample * frames * tokens
    inside_b = columns < tokens
    epsilon = tl.load(epsilons + sample)
    b = tl.load(weights_b + column + columns, mask=inside_b, other=0.0)
    square_b = tl.zeros_like(b)
    if GROMOV:
        square_b = tl.load(squares_b + column + columns, mask=inside_b, other=0.0)
    node = 0.0
    energy = 0.0
    primal = 0.0
    low = tl.zeros_like(b) - NOTHING
    for start in range(0, frames, ROWS):
        rows, there, places, inside = _rows(start, frames, tokens, columns, ROWS)
        a = tl.load(weights_a + row + rows, mask=there, other=0.0)
        support = (a > 0.0)[:, None] & (b > 0.0)[None, :]
        plan = tl.load(rounded + matrix + places, mask=inside, other=0.0)
        gradient = tl.load(linear + matrix + places, mask=inside, other=0.0)
        f = tl.load(fs + row + rows, mask=there, other=0.0) * epsilon
        if GROMOV:
            square_a = tl.load(squares_a + row + rows, mask=there, other=0.0)
            half = _half(cross + matrix, square_a, square_b, support, places, inside)
            energy += tl.sum(tl.sum(half * plan, 1), 0)
            gradient += 2.0 * alpha * half
            f += 2.0 * alpha * square_a  # the steps left out what their potentials would have absorbed
        cost = tl.load(costs + matrix + places, mask=inside & support, other=0.0)
        node += tl.sum(tl.sum(cost * plan, 1), 0)
        primal += tl.sum(tl.sum(gradient * plan, 1), 0)
        low = tl.minimum(low, tl.min(tl.where(support, gradient, -NOTHING) - f[:, None], 0))
        if KEEP:
            tl.store(plans + matrix + places, plan, mask=inside)
    g = tl.where(b > 0.0, low, 0.0)  # c-transforms make the potentials feasible
    dual = tl.sum(g * b, 0)
    for start in range(0, frames, ROWS):
        rows, there, places, inside = _rows(start, frames, tokens, columns, ROWS)
        a = tl.load(weights_a + row + rows, mask=there, other=0.0)
        support = (a > 0.0)[:, None] & (b > 0.0)[None, :]
        gradient = tl.load(linear + matrix + places, mask=inside, other=0.0)
        if GROMOV:
            square_a = tl.load(squares_a + row + rows, mask=there, other=0.0)
            gradient += 2.0 * alpha * _half(cross + matrix, square_a, square_b, support, places, inside)
        least = tl.min(tl.where(support, gradient - g[None, :], -NOTHING), 1)
        dual += tl.sum(tl.where(a > 0.0, least, 0.0) * a, 0)
    gap = primal - dual
    gap = tl.where(gap < 0.0, 0.0, gap)
    if KEEP:
        tl.store(done + sample, (gap <= tolerance * tl.load(scales + sample)).to(tl.int32))
    else:
        tl.store(nodes + sample, node)
        tl.store(energies + sample, tl.where(energy < 0.0, 0.0, energy))
        tl.store(gaps + sample, gap)
