"""Dose and response: error rates against what the teacher has read, from the results of run_dose.sh."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espnet_gmot.report.figures import COLORS, MARKS, drawn
from espnet_gmot.report.results import Result
from espnet_gmot.report.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What run_dose.sh calls its teachers, after the system's name.
_DOSE = re.compile(r"(.+)-(none|own|x\d+|permuted\d*|blank)")
_READ = {
    "none": "random\nweights",
    "own": "the\ntranscripts",
    "blank": "no\ncharacters",
}


@dataclass(frozen=True)
class Response:
    """What a teacher's reading does on one set.

    Attributes:
        baseline: the system without a teacher that the others are compared with.
        doses: labels along the axis: systems without a teacher, then from nothing to much, then controls.
        rates: for each preset CER in %, the mean over seeds, by label.
        differences: for each preset the CER in % less the baseline's with the same seed, one for each seed, by label.
    """

    baseline: str
    doses: list[str]
    rates: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, Mapping[str, Sequence[float]]]


def responses(results: Sequence[Result]) -> dict[str, Response]:
    """Dose and response for each set; none where fewer than two doses, or no system without one, were tried.

    Args:
        results: of a comparison; the baseline is ``ctc``, else the first system without a dose.
    """
    found = {}
    without = [result.system for result in results if not _DOSE.fullmatch(result.system)]
    baseline = "ctc" if "ctc" in without else next(iter(without), "")
    for name in dict.fromkeys(result.set for result in results):
        rates: dict[str, dict[int, float]] = {}
        for result in results:
            if result.set == name:
                rates.setdefault(result.system, {})[result.seed] = 100 * result.cer
        base = rates.pop(baseline, {})
        means: dict[str, dict[str, float]] = {}
        differences: dict[str, dict[str, list[float]]] = {}
        tried = {}
        for system, values in rates.items():
            dose = _DOSE.fullmatch(system)
            preset, label = (dose[1], _label(dose[2])) if dose else (system.partition("-")[0], system)
            each = [value - base[seed] for seed, value in sorted(values.items()) if seed in base]
            if each and (dose or preset == baseline):
                tried[label] = order(system)
                means.setdefault(preset, {})[label] = mean_interval(list(values.values()))[0]
                differences.setdefault(preset, {})[label] = each
        if sum(place >= 0 for place in tried.values()) > 1:
            found[name] = Response(baseline, sorted(tried, key=lambda label: tried[label]), means, differences)
    return found


def order(system: str) -> float:
    """Where a system stands by what its teacher has read, from little to much, then the controls; -1 without a dose."""
    dose = system.rpartition("-")[2]
    if amount := re.fullmatch(r"x(\d+)", dose):
        return float(amount[1])
    if permuted := re.fullmatch(r"permuted(\d*)", dose):  # of x10 without a number
        return 1e9 + float(permuted[1] or 10)
    return {"none": 0.0, "own": 1.0, "blank": 2e9}.get(dose, -1.0)


def _label(dose: str) -> str:
    if dose.startswith("permuted"):
        return f"{dose.removeprefix('permuted') or 10} times,\npermuted"
    return _READ.get(dose, f"{dose[1:]} times")


def figure(response: Response) -> "Figure":
    """Differences from the baseline: each seed, their mean and its 95 % interval."""
    page = drawn(3.2)
    axes = page.subplots()
    presets = [preset for preset in response.differences if preset != response.baseline]
    apart = min(0.3, 0.8 / max(1, len(presets)))  # so that doses don't run into one another
    for index, (preset, by_dose) in enumerate(response.differences.items()):
        color = COLORS[index % 7]
        shift = apart * (presets.index(preset) - (len(presets) - 1) / 2) if preset in presets else 0.0
        for dose, each in by_dose.items():
            place = response.doses.index(dose) + shift
            mean, half = mean_interval(each)
            axes.errorbar(
                [place], [mean], [half] if len(each) > 1 else None, color=color, capsize=3, marker="_", markersize=12
            )
            axes.plot([place + apart / 3] * len(each), each, MARKS[index % 7], color=color, markersize=3.5)
        axes.plot([], [], MARKS[index % 7], color=color, label=preset)
    axes.axhline(0.0, color="black", linewidth=1)
    axes.set_xticks(range(len(response.doses)), response.doses)
    axes.set_xlabel("what the teacher has read")
    axes.set_ylabel(f"CER %, less {response.baseline}'s")
    axes.grid(alpha=0.25)
    page.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return page
