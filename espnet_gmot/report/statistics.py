"""Statistics of error rates: intervals over seeds, and paired tests over utterances."""

import math
from collections.abc import Sequence


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
