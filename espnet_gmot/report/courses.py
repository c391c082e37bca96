"""Alignment along training: errors of the tokens' times against epochs, from ``align --measure`` of several epochs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espnet_gmot.report.figures import COLORS, DASHES, MARKS, drawn
from espnet_gmot.report.measure import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: ESPnet's name of the parameters after an epoch.
_EPOCH = re.compile(r"(\d+)epoch\.pth")
_FOLDER = re.compile(r"^.*?asr_|_seed\d+$")


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
    """Moments in order by the system's name: of its plan as trained, or of CTC where it has none.

    Args:
        scores: those of parameters that aren't one epoch's are left out, and systems of which a single epoch is left.
    """
    found: dict[str, dict[int, dict[str, list[Score]]]] = {}
    for score in scores:
        if (epoch := _EPOCH.fullmatch(score.model_file)) and score.aligner in ("plan", "ctc"):
            at = found.setdefault(_FOLDER.sub("", score.experiment), {}).setdefault(int(epoch[1]), {})
            at.setdefault(score.aligner, []).append(score)
    lines = {}
    for system, epochs in found.items():
        aligner = "plan" if any("plan" in at for at in epochs.values()) else "ctc"
        moments = [_moment(epoch, at[aligner]) for epoch, at in sorted(epochs.items()) if aligner in at]
        if len(moments) > 1:
            lines[system if aligner == "plan" else f"{system} (forced alignment)"] = moments
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
        style = {"color": COLORS[index % 7], "linestyle": DASHES[index % 7], "marker": MARKS[index % 7]}
        epochs = [moment.epoch for moment in moments]
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
