"""Every system's error rate less the baseline's, drawn with its interval: what helps lies to the left of zero."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espnet_gmot.report.figures import COLORS, drawn
from espnet_gmot.report.pairing import pair
from espnet_gmot.report.scored import Row
from espnet_gmot.report.tables import blocks_of, resampled
from espnet_gmot.report.utterances import Counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Difference:
    """A system's CER less the baseline's, in %.

    Attributes:
        system: its name.
        value, low, high: the difference and its 95 % interval over seeds and speakers (or sentences).
        p_value: two-sided, seeds in pairs where they are the same.
        unpaired: the same, seeds taken for independent.
        each: seed by seed, of those that both have.
        note: one line about seeds that are not the same.
    """

    system: str
    value: float
    low: float
    high: float
    p_value: float
    unpaired: float
    each: Sequence[float]
    note: str = ""


def differences(
    systems: Mapping[str, Sequence[Row | Counted]], base: str, resamples: int, blocks: str | None = None
) -> list[Difference]:
    """Every other system's difference from the baseline on one set.

    Args:
        systems: for each its experiments, one for each seed; see :func:`espnet_gmot.report.pairing.pair`.
        base: the baseline.
        resamples: of the bootstrap.
        blocks: what to draw, ``speaker`` or ``utterance``; by default what :func:`blocks_of` says.

    Raises:
        UserError: there are too few speakers and sentences to resample.
    """
    theirs = systems[base]
    keys = sorted(theirs[0].lengths)
    characters = sum(theirs[0].lengths.values())
    found = []
    for system, ours in systems.items():
        if system == base:
            continue
        apart = resampled(ours, blocks or blocks_of(ours[0]), resamples, theirs)
        paired = pair(ours, theirs)
        each = [100 * (sum(row.errors(keys)) - sum(other.errors(keys))) / characters for row, other in paired.pairs]
        bounds = (100 * apart.value, 100 * apart.low, 100 * apart.high)
        found.append(Difference(system, *bounds, apart.p_value, apart.unpaired, each, paired.note))
    return found


def figure(found: Sequence[Difference], base: str, labels: Mapping[str, str] | None = None) -> "Figure":
    """Intervals and seeds of each difference, one line each, in their order from the top.

    Args:
        found: what to draw.
        base: the baseline's name.
        labels: what to call systems other than by their names.
    """
    page = drawn(0.9 + 0.36 * len(found))
    axes = page.subplots()
    for place, each in enumerate(found):
        axes.plot([each.low, each.high], [place, place], color=COLORS[0], linewidth=1.6, solid_capstyle="butt")
        axes.plot([each.value], [place], "s", color=COLORS[0], markersize=6)
        axes.plot(each.each, [place - 0.24] * len(each.each), "o", color=COLORS[1], markersize=3.5)
    axes.axvline(0.0, color="black", linewidth=1)
    axes.set_yticks(range(len(found)), [(labels or {}).get(each.system, each.system) for each in found])
    axes.set_ylim(len(found) - 0.5, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"CER %, less {base}'s: better to the left")
    axes.grid(axis="x", alpha=0.25)
    return page
