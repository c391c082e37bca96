"""Alignment along training: read from the scores of several epochs, and drawn on the page."""

from dataclasses import replace
from pathlib import Path

import pytest

from espnet_gmot.report import cli
from espnet_gmot.report.courses import Moment, courses, figure
from espnet_gmot.report.measure import Score, write_scores


def score(system: str, seed: int, file: str, aligner: str, error: float, inside: float = 0.5) -> Score:
    """What `align --measure` says of an experiment."""
    return Score(f"exp/asr_{system}_seed{seed}", file, aligner, 2, 20, error, 1.0, error, 0.0, error, inside)


SCORES = [
    score("gmot-x10", 0, "10epoch.pth", "plan", 200.0, 0.4),
    score("gmot-x10", 1, "10epoch.pth", "plan", 100.0, 0.6),
    score("gmot-x10", 0, "2epoch.pth", "plan", 500.0),
    score("gmot-x10", 1, "2epoch.pth", "plan", 300.0),
    score("gmot-x10", 0, "4epoch.pth", "plan", 3.0),  # of one seed alone
    score("gmot-x10", 0, "2epoch.pth", "ctc", 7.0),
    score("gmot-x10", 0, "2epoch.pth", "tot", 8.0),
    score("gmot-x10", 0, "valid.cer_ctc.ave.pth", "plan", 9.0),
    score("ctc", 0, "10epoch.pth", "ctc", 80.0),
    score("ctc", 0, "2epoch.pth", "ctc", 90.0),
    score("ot-x10", 0, "2epoch.pth", "plan", 90.0),
]


def test_epochs_in_order_and_seeds_averaged() -> None:
    lines = courses(SCORES)
    assert list(lines) == ["gmot-x10", "ctc (forced alignment)"]  # one epoch is no course
    assert lines["gmot-x10"] == [Moment(2, 400.0, 0.5, 2), Moment(10, 150.0, 0.5, 2)]
    assert [moment.error_ms for moment in lines["ctc (forced alignment)"]] == [90.0, 80.0]
    left, right = figure(lines).axes
    assert left.lines[0].get_xydata().tolist() == [[2, 400], [10, 150]]
    assert right.lines[0].get_xydata().tolist() == [[2, 50], [10, 50]]
    assert courses([]) == {}


def test_places_and_folders_of_one_name_are_lines_of_their_own() -> None:
    def moments(experiment: str, aligner: str) -> list[Score]:
        some = [score("x", 0, file, aligner, 5.0) for file in ("1epoch.pth", "2epoch.pth")]
        return [replace(each, experiment=experiment) for each in some]

    tapped = [s for place in ("plan@encoder.3", "plan@encoder", "ctc") for s in moments("exp/asr_hcsa_seed0", place)]
    assert list(courses(tapped)) == ["hcsa@encoder.3", "hcsa@encoder"]
    twice = [*moments("my_asr_work/a/asr_gmot_seed0", "plan"), *moments("b/asr_gmot_seed0", "plan")]
    assert list(courses(twice)) == ["my_asr_work/a/asr_gmot", "b/asr_gmot"]
    assert list(courses(twice[:2])) == ["gmot"]
    drawn = figure({str(index): courses(tapped)["hcsa@encoder"] for index in range(14)}).axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 14


@pytest.mark.parametrize("epochs", [True, False])
def test_the_page_draws_them(tmp_path: Path, epochs: bool) -> None:
    write_scores(tmp_path / "alignment.csv", SCORES if epochs else SCORES[7:8])
    results = Path(__file__).parents[2] / "docs/results/dose.csv"
    page = tmp_path / "a.html"
    assert cli.main(["--csv", str(results), "--alignment", str(tmp_path / "alignment.csv"), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert ("gmot-x10: 400 ms after epoch 2, 150 ms after epoch 10" in text) is epochs
    assert 'id="times"' in text
