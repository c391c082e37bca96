"""Statistics of error rates: intervals over seeds, the bootstrap over speakers, and the matched-pairs segment test."""

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
class Bootstrap:
    """What resampling says of a rate, or of a difference of two rates.

    Attributes:
        value: of the sample itself.
        error: standard error: the deviation over the resamples.
        low, high: percentile interval.
        p_value: two-sided, of the hypothesis that the value is 0; at least 1 / (resamples + 1).
    """

    value: float
    error: float
    low: float
    high: float
    p_value: float


def bootstrap(
    errors: np.ndarray,
    tokens: np.ndarray,
    blocks: Sequence[Hashable],
    other: np.ndarray | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Resample whole blocks (speakers) with replacement, and seeds too where there are several.

    An utterance isn't independent of its speaker's others, so blocks are drawn, as in Bisani and Ney (ICASSP 2004) with
    a speaker for an utterance. Both systems see the same blocks: the difference is paired. Their seeds are drawn apart,
    for a common seed pairs nothing. (n seeds drawn with replacement show (n - 1) / n of the seeds' variance.)

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
    names = list(dict.fromkeys(blocks))
    place = {name: index for index, name in enumerate(names)}
    member = np.array([place[block] for block in blocks])
    if errors.ndim != 2 or not errors.shape[1] == len(tokens) == len(member):
        raise ValueError(f"errors {errors.shape}, tokens {tokens.shape} and {len(member)} blocks don't fit")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples).astype(float)

    def sums(values: np.ndarray) -> np.ndarray:
        """(S, N) → (S, blocks)."""
        return np.stack([np.bincount(member, row, len(names)) for row in values.astype(float)])

    def rates(values: np.ndarray) -> np.ndarray:
        """(resamples,) errors per token, with the seeds drawn."""
        count = len(values)
        seeds = rng.multinomial(count, np.full(count, 1 / count), resamples) / count
        return np.einsum("rb,sb,rs->r", drawn, sums(values), seeds, optimize=True) / (drawn @ sums(tokens[None])[0])

    found = rates(errors)
    value = errors.sum() / len(errors) / tokens.sum()
    if other is not None:
        found = found - rates(other)
        value = value - other.sum() / len(other) / tokens.sum()
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    tail = min(np.sum(found <= 0), np.sum(found >= 0))
    p_value = min(1.0, 2 * (tail + 1) / (resamples + 1))
    return Bootstrap(float(value), float(found.std(ddof=1)), float(low), float(high), float(p_value))


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
