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


@dataclass(frozen=True)
class Uncertain:
    """A rate, or a difference of two rates, and how sure it is.

    Attributes:
        value: of the sample itself.
        error: standard error.
        low, high: interval.
        p_value: two-sided, of the hypothesis that the value is 0.
    """

    value: float
    error: float
    low: float
    high: float
    p_value: float


def uncertain(
    errors: np.ndarray,
    tokens: np.ndarray,
    blocks: Sequence[Hashable],
    other: np.ndarray | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Uncertain:
    """What other test speakers and other seeds would have changed.

    An utterance isn't independent of its speaker's others, so whole blocks are drawn with replacement, as in Bisani and
    Ney (ICASSP 2004) with a speaker for an utterance. Both systems see the same blocks: the difference is paired.
    With one seed, interval and p-value (at least 2 / (resamples + 1)) are those of the resamples.

    Seeds are too few to be drawn (three of one sign would always have that sign): the variance of their mean is added
    to that of the blocks, and interval and p-value are Student's, with Welch and Satterthwaite's degrees of freedom. As
    many seeds of both systems are paired, row by row: a seed gives both their first weights and the order of their
    batches, and what is hard for one is hard for the other. (Chance in single sentences counts in both variances, which
    is on the safe side.)

    Args:
        errors: (S, N) errors of each of S seeds on each of N utterances.
        tokens: (N,) reference tokens.
        blocks: the speaker of each of the N utterances.
        other: (R, N) errors of the system whose rate is subtracted; None for the rate itself.
        resamples: number of them.
        level: coverage of the interval.
        seed: of the resampling.

    Raises:
        ValueError: the shapes don't fit.
    """
    from scipy.stats import t

    names = list(dict.fromkeys(blocks))
    place = {name: index for index, name in enumerate(names)}
    member = np.array([place[block] for block in blocks])
    if errors.ndim != 2 or not errors.shape[1] == len(tokens) == len(member):
        raise ValueError(f"errors {errors.shape}, tokens {tokens.shape} and {len(member)} blocks don't fit")
    difference = errors.mean(0) if other is None else errors.mean(0) - other.mean(0)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
    sums, sizes = (np.bincount(member, values, len(names)) for values in (difference, tokens))
    found = (drawn @ sums) / (drawn @ sizes)
    value = float(difference.sum() / tokens.sum())
    of_blocks = float(found.var(ddof=1))
    parts = [each.sum(1) / tokens.sum() for each in (errors, other) if each is not None]
    if len(parts) == 2 and len(parts[0]) == len(parts[1]):
        parts = [parts[0] - parts[1]]
    of_seeds = [(float(part.var(ddof=1)) / len(part), len(part) - 1) for part in parts if len(part) > 1]
    if not any(variance for variance, _ in of_seeds):
        low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
        tail = min(np.sum(found <= 0), np.sum(found >= 0))
        return Uncertain(
            value, math.sqrt(of_blocks), float(low), float(high), min(1.0, 2 * float(tail + 1) / (resamples + 1))
        )
    variances = [(of_blocks, max(1, len(names) - 1)), *of_seeds]
    whole = math.fsum(variance for variance, _ in variances)
    freedom = whole**2 / math.fsum(variance**2 / count for variance, count in variances)
    half = float(t.ppf((1 + level) / 2, freedom)) * math.sqrt(whole)
    p_value = 2 * float(t.sf(abs(value) / math.sqrt(whole), freedom))
    return Uncertain(value, math.sqrt(whole), value - half, value + half, p_value)


@dataclass(frozen=True)
class SegmentTest:
    """Outcome of the matched-pairs test.

    Attributes:
        segments: how many there are.
        mean: of the first system's errors less the second's, over the segments.
        deviation: of that difference, over the segments.
        z: mean / (deviation / sqrt(segments)), standard normal if the systems are alike.
        p_value: two-tailed.
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
    z = mean / (deviation / math.sqrt(count)) if deviation else math.copysign(math.inf, mean) if mean else 0.0
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
