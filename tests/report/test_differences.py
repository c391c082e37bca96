"""Differences from a baseline, seed by seed and with their intervals, and how they are drawn."""

import numpy as np
import pytest

from espnet_gmot.report.differences import differences, figure
from espnet_gmot.report.statistics import uncertain
from espnet_gmot.report.utterances import Counted

LENGTHS = {f"s{index // 2:02}-{index:03}": 10 + index % 3 for index in range(40)}


def counted(system: str, seed: int, every: int) -> Counted:
    """Every so many-th utterance has one error."""
    return Counted(system, "test", LENGTHS, {key: int((i + seed) % every == 0) for i, key in enumerate(LENGTHS)})


SYSTEMS = {
    "ctc": [counted("ctc", 0, 2), counted("ctc", 1, 2)],
    "gmot": [counted("gmot", 0, 4), counted("gmot", 1, 5)],
    "same": [counted("same", 0, 2), counted("same", 1, 2)],
}


def test_differences_are_the_bootstraps_and_each_seeds_own() -> None:
    gmot, same = differences(SYSTEMS, "ctc", 2000)
    characters = sum(LENGTHS.values())
    assert gmot.system == "gmot" and gmot.each == pytest.approx(
        [100 * (10 - 20) / characters, 100 * (8 - 20) / characters]
    )
    keys = sorted(LENGTHS)
    ours, theirs = (np.array([row.errors(keys) for row in SYSTEMS[name]]) for name in ("gmot", "ctc"))
    tokens = np.array([LENGTHS[key] for key in keys])
    apart = uncertain(ours, tokens, [key.split("-")[0] for key in keys], theirs, resamples=2000)
    assert [gmot.value, gmot.low, gmot.high] == pytest.approx([100 * x for x in (apart.value, apart.low, apart.high)])
    assert gmot.low < gmot.value < gmot.high and (gmot.p_value, gmot.unpaired) == (apart.p_value, apart.unpaired)
    assert (same.value, same.each) == (0, [0, 0])


def test_the_picture_has_a_line_for_each_system_from_the_top() -> None:
    pytest.importorskip("matplotlib")
    found = differences(SYSTEMS, "ctc", 1000)
    axes = figure(found, "ctc", {"gmot": "GM-OT"}).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["GM-OT", "same"]
    bottom, top = axes.get_ylim()
    assert bottom > top and axes.get_xlabel() == "CER %, less ctc's: better to the left"
    bars = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    assert [list(bar.get_xdata()) for bar in bars[:2]] == [[each.low, each.high] for each in found]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [list(each.each) for each in found]
