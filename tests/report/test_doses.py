"""Dose and response: read from the names that run_dose.sh gives, and drawn on the page."""

from dataclasses import fields
from pathlib import Path

import pytest

from espnet_gmot.report import cli
from espnet_gmot.report.doses import responses
from espnet_gmot.report.results import Result, write_results


def result(system: str, seed: int, errors: int, name: str = "dev") -> Result:
    """A line of a comparison's CSV: so many errors of 1000 characters."""
    values = {field.name: field.type() for field in fields(Result)}
    known = {"system": system, "seed": seed, "set": name, "utterances": 100, "characters": 1000, "errors": errors}
    return Result(
        **values
        | known
        | {
            "substitutions": errors,
            "cer": errors / 1000,
            "counted_by": "jiwer",
            "cpu_hours": 0.25 + seed,
            "commit": "abc123",
        }
    )


RESULTS = [
    result(system, seed, errors + seed)
    for system, errors in (
        ("ctc", 90),
        ("gmot-x10", 40),
        ("gmot-permuted30", 80),
        ("gmot-permuted", 85),
        ("gmot-blank", 91),
        ("gmot-none", 88),
        ("gmot-x3", 60),
    )
    for seed in (0, 2)
]


def test_doses_stand_in_their_order() -> None:
    (name, response), *others = responses([*RESULTS, result("ctc-long", 2, 62)]).items()
    assert name == "dev" and not others and response.baseline == "ctc"
    labels = ["random weights", "3 times", "10 times", "10 times, permuted", "30 times, permuted", "no characters"]
    assert [" ".join(dose.split()) for dose in response.doses] == ["ctc-long", *labels]
    assert response.rates["gmot"]["10 times"] == pytest.approx(4.1)
    assert response.differences["gmot"]["10 times"] == pytest.approx([-5.0, -5.0])  # each seed with its like
    assert response.differences["ctc"] == {"ctc-long": pytest.approx([6.2 - 9.2])}
    assert responses([result("gmot-x10", 0, 1), result("gmot-t", 0, 2)]) == {}
    others = [each for each in RESULTS if each.system != "ctc"]
    assert responses(others) == {}
    assert responses([*others, result("base", 0, 90)])["dev"].baseline == "base"


def test_the_page_of_a_csv_draws_them(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_results(tmp_path / "results.csv", RESULTS)
    assert cli.main(["--csv", str(tmp_path / "results.csv"), "--html", str(tmp_path / "a.html")]) == 0
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "gmot with 10 times: 4.1 %; " in text and "Dose and response, dev" in text
    assert "commit: abc123" in text and "<td>1.25</td>" in text  # the mean of its seeds' processor hours
    assert "4.10" in text and 'id="learning"' not in text
