"""Statistics of error rates: intervals over seeds and speakers, and the matched-pairs segment test."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from espnet_gmot.report.cer import Edit


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean and half the width of its t interval.

    Args:
        values: one for each seed.
        level: coverage.

    Returns:
        The mean (nan without values) and the half width (nan with fewer than two).
    """
    count = len(values)
    if count == 0:
        return math.nan, math.nan
    mean = math.fsum(values) / count
    if count == 1:
        return mean, math.nan
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return mean, float(t.ppf((1 + level) / 2, count - 1)) * deviation / math.sqrt(count)


def ratio_error(groups: Sequence[np.ndarray]) -> float:
    """Standard error of a mean over all tokens when whole utterances are drawn (linearised ratio estimator).

    Args:
        groups: (U,) values for each utterance; nan ones don't count. Fewer than two groups have no error: nan.
    """
    sums = np.array([np.nansum(group) for group in groups])
    sizes = np.array([np.isfinite(group).sum() for group in groups])
    if len(groups) < 2 or not sizes.sum():
        return float("nan")
    residual = sums - sizes * sums.sum() / sizes.sum()
    return float(np.sqrt(len(groups) / (len(groups) - 1) * (residual**2).sum()) / sizes.sum())


_DRAWS = 100_000  # of the distribution of a mean over seeds and blocks


@dataclass(frozen=True)
class Uncertain:
    """A rate, or a difference of two rates, and how sure it is.

    Attributes:
        value: of the sample itself.
        error: standard error.
        low, high: interval.
        p_value: two-sided, of the hypothesis that the value is 0.
        unpaired: the same with seeds taken for independent; ``p_value`` where they aren't paired anyway.
    """

    value: float
    error: float
    low: float
    high: float
    p_value: float
    unpaired: float


def uncertain(
    errors: np.ndarray,
    tokens: np.ndarray,
    blocks: Sequence[Hashable],
    other: np.ndarray | None = None,
    *,
    paired: bool = True,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Uncertain:
    """What other test speakers and other seeds would have changed.

    An utterance isn't independent of its speaker's others, so whole blocks are drawn with replacement, as in Bisani and
    Ney (ICASSP 2004) with a speaker for an utterance. Both systems see the same blocks: the difference is paired.
    With one seed, interval and p-value (at least 2 / (resamples + 1)) are those of the resamples.

    Seeds are too few to be drawn (three of one sign would always have that sign). The error of the mean is then taken
    for the sum of Student's variables, one scaled by the blocks' standard error and one by the seeds' (Behrens and
    Fisher's distribution, by Monte Carlo: p is at least 1e-5): with few seeds a variance may be small by luck, and
    degrees of freedom computed from it would believe that. As many seeds of both systems are paired, row by row, unless
    ``paired`` says that they aren't the same: a seed gives both their first weights and their batches' order. That is
    valid whether or not a seed that is hard for one is hard for the other, but gains only where it is, and few seeds
    can agree by luck: see ``unpaired`` too. A single seed beside several is taken to vary as they do. (Chance in single
    sentences counts in both parts.)

    Args:
        errors: (S, N) errors of each of S seeds on each of N utterances.
        tokens: (N,) reference tokens.
        blocks: the speaker of each of the N utterances.
        other: (R, N) errors of the system whose rate is subtracted; None for the rate itself.
        paired: whether row n of both has the same seed, where there are as many.
        resamples: number of them.
        level: coverage of the interval.
        seed: of the resampling.

    Raises:
        ValueError: the shapes don't fit, numbers aren't finite, or there are fewer than two blocks.
    """
    names = list(dict.fromkeys(blocks))
    place = {name: index for index, name in enumerate(names)}
    member = np.array([place[block] for block in blocks])
    systems = [errors] if other is None else [errors, other]
    for each in systems:
        if each.ndim != 2 or not each.shape[1] == len(tokens) == len(member):
            raise ValueError(f"errors {each.shape}, tokens {tokens.shape} and {len(member)} blocks don't fit")
        if not np.isfinite(each).all():
            raise ValueError("errors must be finite")
    if (count := len(names)) < 2:
        raise ValueError(f"{count} blocks: fewer than two don't vary")
    difference = errors.mean(0) if other is None else errors.mean(0) - other.mean(0)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), resamples)
    sums, sizes = (np.bincount(member, values, count) for values in (difference, tokens))
    found = (drawn @ sums) / (drawn @ sizes)
    value = float(difference.sum() / tokens.sum())
    of_blocks = float(found.var(ddof=1)) * count / (count - 1)
    rates = [each.sum(1) / tokens.sum() for each in systems]
    of_seeds = seed_errors(rates, paired)
    if not of_seeds:
        low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
        tail = min(np.sum(found <= 0), np.sum(found >= 0))
        p_value = min(1.0, 2 * float(tail + 1) / (resamples + 1))
        return Uncertain(value, math.sqrt(of_blocks), float(low), float(high), p_value, p_value)
    parts = [(of_blocks, count - 1), *of_seeds]
    off = deviations(parts, rng)
    half = float(np.quantile(off, level))
    apart = [(of_blocks, count - 1), *seed_errors(rates, paired=False)]
    p_value = chance(value, off)
    unpaired = p_value if apart == parts else chance(value, deviations(apart, rng))
    low = value - half if other is not None else max(0.0, value - half)
    error = math.sqrt(math.fsum(variance for variance, _ in parts))
    return Uncertain(value, error, low, value + half, p_value, unpaired)


def chance(value: float, off: np.ndarray) -> float:
    """Two-sided p-value of a mean that may be off by as much as these draws of :func:`deviations`."""
    return float(np.sum(off >= abs(value)) + 1) / (len(off) + 1)


def deviations(parts: Sequence[tuple[float, int]], rng: np.random.Generator) -> np.ndarray:
    """Draws of how far a mean with these variances and degrees of freedom is off, in size."""
    return np.abs(sum(math.sqrt(variance) * rng.standard_t(freedom, _DRAWS) for variance, freedom in parts))


def seed_errors(rates: Sequence[np.ndarray], paired: bool = True) -> list[tuple[float, int]]:
    """Variance of the mean over seeds and its degrees of freedom, for each sample of seeds; none with one seed each."""
    if paired and len(rates) == 2 and len(rates[0]) == len(rates[1]):
        rates = [rates[0] - rates[1]]
    several = [rate for rate in rates if len(rate) > 1]
    if len(several) == 1:
        variance = float(several[0].var(ddof=1))
        return [(variance * math.fsum(1 / len(rate) for rate in rates), len(several[0]) - 1)]
    return [(float(rate.var(ddof=1)) / len(rate), len(rate) - 1) for rate in several]


@dataclass(frozen=True)
class SegmentTest:
    """Outcome of the matched-pairs test.

    Attributes:
        segments: how many there are.
        mean: of the first system's errors less the second's, over the segments.
        deviation: of that difference, over the segments.
        z: mean / (deviation / sqrt(segments)), standard normal if the systems are alike; nan where all segments differ
            alike.
        p_value: two-tailed; there, the sign test's.
    """

    segments: int
    mean: float
    deviation: float
    z: float
    p_value: float


def matched_pairs(pairs: Sequence[tuple[Sequence[Edit], Sequence[Edit]]], boundary: int = 2) -> SegmentTest:
    """Matched-pairs sentence-segment word error test (MAPSSWE), as sclite's sc_stats does it.

    A segment is a stretch of a sentence with errors of either system, ended where both have ``boundary`` tokens right
    in a row, so that errors in different segments are independent (Gillick and Cox, ICASSP 1989).

    Args:
        pairs: for every sentence the alignments of both systems with the same reference.
        boundary: tokens that end a segment.
    """
    differences = [difference for first, second in pairs for difference in _segments(first, second, boundary)]
    count = len(differences)
    if count < 2:
        return SegmentTest(count, math.nan, math.nan, math.nan, 1.0)
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if not deviation:  # all segments differ alike: no deviation to divide by, but their signs are a test
        return SegmentTest(count, mean, 0.0, math.nan if mean else 0.0, 2 * 0.5**count if mean else 1.0)
    z = mean / (deviation / math.sqrt(count))
    return SegmentTest(count, mean, deviation, z, math.erfc(abs(z) / math.sqrt(2)))


def _segments(first: Sequence[Edit], second: Sequence[Edit], boundary: int) -> list[int]:
    """The first system's errors less the second's in every segment of a sentence."""
    found: list[int] = []
    one, two = _errors_by_place(first), _errors_by_place(second)
    right, open_ = boundary, False
    for place in range(max(len(one), len(two))):
        ours, theirs = one[place], two[place]
        if ours or theirs:
            if not open_:
                found.append(0)
            found[-1] += ours - theirs
            right, open_ = 0, True
        elif place % 2:  # a token that both have right
            right += 1
            open_ = open_ and right < boundary
    return found


def _errors_by_place(edits: Sequence[Edit]) -> list[int]:
    """Errors at every token (odd places) and in every gap between tokens (even places, insertions)."""
    size = sum(edit.kind != "insertion" for edit in edits)
    errors = [0] * (2 * size + 1)
    for edit in edits:
        if edit.kind == "insertion":
            errors[2 * edit.place] += 1
        elif edit.kind != "correct":
            errors[2 * edit.place + 1] += 1
    return errors
