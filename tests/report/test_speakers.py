"""Speakers with hyphens of their own stay apart: in the bootstrap, in files of errors and in jiwer's tables."""

from pathlib import Path

import pytest

from espnet_gmot.recipe.score import result_without_sclite
from espnet_gmot.report.cli import main
from espnet_gmot.report.scored import collect
from espnet_gmot.report.speakers import speakers
from espnet_gmot.report.tables import blocks_of
from espnet_gmot.report.utterances import read_utterances
from tests.report.test_report import experiment

REFERENCE = {f"cv-{index % 12:03}-u-{index:02}": "今天天气很好" for index in range(36)}


def scored(exp: Path, wrong: int, ids: bool = True) -> Path:
    """An experiment of twelve speakers with hyphens, with what it decoded or without."""
    experiment(exp, wrong, references=REFERENCE)
    if ids:
        lines = "".join(f"{key.split('-', 2)[2]} 今天\n" for key in REFERENCE)
        (exp / "decode/test/text").write_text(lines)
    return exp


@pytest.mark.parametrize(
    ("speaker", "utterance"),
    [
        ("S1", "S1-u1"),
        ("cv-001", "u1"),
        ("cv-001", "cv-001-u1"),
        ("1f0e-44", "9a-7b-01"),
        ("a b".replace(" ", "_"), "-"),
    ],
)
def test_the_decoded_utterances_tell_where_a_speaker_ends(tmp_path: Path, speaker: str, utterance: str) -> None:
    (tmp_path / "text").write_text(f"{utterance} 今天\nother\n")
    assert speakers(tmp_path / "score_cer", [f"{speaker}-{utterance}"]) == {f"{speaker}-{utterance}": speaker}


def test_parentheses_are_written_as_brackets(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("u(1) 今\n")
    assert speakers(tmp_path / "score_cer", ["a-b-u[1]"]) == {"a-b-u[1]": "a-b"}


def test_a_guess_that_makes_one_of_all_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (row,) = collect("ctc", scored(tmp_path / "a", 3, ids=False), [], None)
    assert blocks_of(row) == "utterance"
    assert "decode/test/text: no such file, so speakers are what" in caplog.text and "of all 36" in caplog.text
    (row,) = collect("ctc", scored(tmp_path / "b", 3), [], None)
    assert blocks_of(row) == "speaker" and set(row.speakers.values()) == {f"cv-{n:03}" for n in range(12)}
    assert len(caplog.records) == 1


def test_files_of_errors_keep_them(tmp_path: Path) -> None:
    exps = [f"ctc={scored(tmp_path / 'ctc', 9)}", f"gmot={scored(tmp_path / 'gmot', 2)}"]
    named, numbered = tmp_path / "named.csv", tmp_path / "numbered.csv"
    main(["--exp", *exps, "--baseline", "ctc", "--resamples", "200", "--write_utterances", str(named)])
    main(["--exp", *exps, "--write_utterances", str(numbered), "--anonymous"])
    assert named.read_text().splitlines()[0] == "set,utterance,characters,speaker,ctc:0,gmot:0"
    assert numbered.read_text().splitlines()[0] == "set,utterance,characters,ctc:0,gmot:0"
    for file in (named, numbered):
        (found,) = read_utterances(file)["ctc", "test"]
        assert len(set(found.speakers.values())) == 12 and blocks_of(found) == "speaker"
    assert "cv-" not in numbered.read_text()


def test_jiwers_table_has_a_line_for_each(tmp_path: Path) -> None:
    text = result_without_sclite(scored(tmp_path, 3) / "decode/test/score_cer")
    assert sum(line.startswith("| cv-0") for line in text.splitlines()) == 2 * 12
