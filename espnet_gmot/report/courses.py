"""Alignment along training: errors of the tokens' times against epochs, from ``align --measure`` of several epochs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espnet_gmot.report.figures import drawn, line_style
from espnet_gmot.report.measure import Score, systems

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: ESPnet's name of the parameters after an epoch.
_EPOCH = re.compile(r"(\d+)epoch\.pth")


@dataclass(frozen=True)
class Moment:
    """A system's alignment after an epoch: means over its seeds.

    Attributes:
        epoch: from 1.
        error_ms, inside: as in :class:`espnet_gmot.report.measure.Score`.
        seeds: how many experiments.
    """

    epoch: int
    error_ms: float
    inside: float
    seeds: int


def courses(scores: Sequence[Score]) -> dict[str, list[Moment]]:
    """Moments in order by the system's name: of its plans as trained, or of CTC where it has none.

    Args:
        scores: left out are those of parameters that aren't one epoch's, epochs at which a system lacks some of its
            seeds, and systems of which a single epoch is left.
    """
    names = systems(scores)
    found: dict[str, dict[str, dict[int, list[Score]]]] = {}
    for score in scores:
        epoch, aligner = _EPOCH.fullmatch(score.model_file), score.aligner
        if epoch and (aligner == "ctc" or aligner.partition("@")[0] == "plan"):
            aligners = found.setdefault(names[score.experiment], {})
            aligners.setdefault(aligner, {}).setdefault(int(epoch[1]), []).append(score)
    lines = {}
    for system, aligners in found.items():
        for aligner, epochs in aligners.items():
            if aligner == "ctc" and len(aligners) > 1:
                continue
            seeds = max(map(len, epochs.values()))
            moments = [_moment(epoch, each) for epoch, each in sorted(epochs.items()) if len(each) == seeds]
            place = " (forced alignment)" if aligner == "ctc" else aligner.removeprefix("plan")
            if len(moments) > 1:
                lines[system + place] = moments
    return lines


def _moment(epoch: int, scores: Sequence[Score]) -> Moment:
    count = len(scores)
    return Moment(epoch, sum(s.error_ms for s in scores) / count, sum(s.inside for s in scores) / count, count)


def figure(lines: Mapping[str, Sequence[Moment]]) -> "Figure":
    """Errors and mass in the right place, a line for each system."""
    from matplotlib.ticker import LogLocator

    page = drawn(3.2)
    left, right = page.subplots(1, 2)
    for index, (system, moments) in enumerate(lines.items()):
        style, epochs = line_style(index), [moment.epoch for moment in moments]
        left.plot(epochs, [moment.error_ms for moment in moments], label=system, markersize=4, **style)
        right.plot(epochs, [100 * moment.inside for moment in moments], markersize=4, **style)
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    left.yaxis.set_major_formatter("{x:.0f}")
    left.minorticks_off()
    left.set_ylabel("error of a character's time, ms")
    right.set_ylabel("of its mass in its true span, %")
    right.set_ylim(0, 100)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.set_xticks(sorted({moment.epoch for moments in lines.values() for moment in moments}))
        axes.grid(alpha=0.25, which="both")
    page.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return page
