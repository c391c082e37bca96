"""Dose and response: error rates against what the teacher has read, from the results of run_dose.sh."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espnet_gmot.report.figures import COLORS, DASHES, MARKS, drawn
from espnet_gmot.report.results import Result
from espnet_gmot.report.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What run_dose.sh calls its teachers, after the system's name, and what they have read.
_DOSE = re.compile(r"(.+)-(none|own|x\d+|permuted|blank)")
_CONTROLS = ("permuted", "no characters")  # labels of what is no dose
_READ = {"none": "nothing", "own": "transcripts", "permuted": "permuted", "blank": "no characters"}


@dataclass(frozen=True)
class Response:
    """Error rates of one set.

    Attributes:
        doses: labels along the axis, from nothing to much, controls last.
        by_dose: for each preset (CER in %, half the width of its interval over seeds) by label.
        others: the same of systems without a dose, such as the baseline.
    """

    doses: list[str]
    by_dose: Mapping[str, Mapping[str, tuple[float, float]]]
    others: Mapping[str, tuple[float, float]]


def responses(results: Sequence[Result]) -> dict[str, Response]:
    """Dose and response for each set; empty where fewer than two doses were tried."""
    found = {}
    for name in dict.fromkeys(result.set for result in results):
        rates: dict[str, list[float]] = {}
        for result in results:
            if result.set == name:
                rates.setdefault(result.system, []).append(100 * result.cer)
        by_dose: dict[str, dict[str, tuple[float, float]]] = {}
        others, tried = {}, set()
        for system, values in rates.items():
            if dose := _DOSE.fullmatch(system):
                tried.add(dose[2])
                by_dose.setdefault(dose[1], {})[_label(dose[2])] = mean_interval(values)
            else:
                others[system] = mean_interval(values)
        if len(tried) > 1:
            found[name] = Response(
                [_label(dose) for dose in sorted(tried, key=lambda dose: (_order(dose), dose))], by_dose, others
            )
    return found


def _order(dose: str) -> float:
    return {"none": 0.0, "own": 1.0}.get(dose, np.inf) if dose in _READ else float(dose[1:])


def _label(dose: str) -> str:
    return _READ.get(dose, f"{dose[1:]} times")


def figure(response: Response) -> "Figure":
    """CER against the dose, with 95 % intervals over seeds; systems without a dose as lines across."""
    page = drawn(3.2)
    axes = page.subplots()
    for index, (system, line) in enumerate(response.by_dose.items()):
        places = [response.doses.index(dose) + 0.06 * (index - len(response.by_dose) / 2) for dose in line]
        means, halves = np.array(list(line.values())).T
        style: dict[str, Any] = {"color": COLORS[index % 7], "marker": MARKS[index % 7], "label": system}
        axes.errorbar(places, means, np.nan_to_num(halves), capsize=3, linestyle="none", **style)
        ordered = [place for place in np.argsort(places) if list(line)[place] not in _CONTROLS]
        axes.plot(np.array(places)[ordered], means[ordered], DASHES[index % 7], color=COLORS[index % 7], linewidth=1.2)
    for index, (system, (mean, half)) in enumerate(response.others.items(), len(response.by_dose)):
        axes.axhline(mean, color=COLORS[index % 7], linestyle=DASHES[index % 7], linewidth=1.2, label=system)
        if np.isfinite(half):
            axes.axhspan(mean - half, mean + half, color=COLORS[index % 7], alpha=0.12, linewidth=0)
    axes.set_xticks(range(len(response.doses)), response.doses)
    axes.set_xlabel("domain text that the teacher has read")
    axes.set_ylabel("CER %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    page.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return page
