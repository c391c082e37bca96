"""`report` refuses what it can't heed: options without effect, empty sets, results of another decoding."""

import os
from pathlib import Path

import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.recipe.score import result_without_sclite
from espnet_gmot.report.cli import main
from tests.report.test_report import experiment

IGNORED = [
    (["--exp", "a=b", "--systems", "a"], "--systems: chooses those of --comparison or --csv"),
    (["--exp", "a=b", "--knowledge", "none.csv"], "--knowledge: says what the page shows: give --html FILE"),
    (["--exp", "a=b", "--alignment", "none.csv"], "--alignment: says what the page shows: give --html FILE"),
    (["--exp", "a=b", "--title", ""], "--title: says what the page shows"),
    (["--exp", "a=b", "--html", "o.html", "--truth", "none.ctm"], "--truth: goes with --utt"),
    (["--exp", "a=b", "--utterances", "none.csv"], "--utterances: goes with --csv and --baseline or --blocks"),
    (["--csv", "r.csv", "--utterances", "none.csv"], "--utterances: goes with --csv and --baseline or --blocks"),
    (["--csv", "r.csv", "--inference_tag", "x"], "--inference_tag: --csv has the decodings"),
    (["--exp", "a=b", "--html", "/"], "/: is a folder; give the name of a file"),
    (["--exp", "a=b", "--write_utterances", "/"], "/: is a folder; give the name of a file"),
]


@pytest.mark.parametrize(("line", "message"), IGNORED)
def test_no_option_is_ignored(line: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        main(line)
    assert "\n" not in str(caught.value)


def test_an_empty_set_has_no_rate(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"score_cer/ref.trn: has no characters to count errors of"):
        main(["--exp", f"a={experiment(tmp_path, 0, references={})}"])


def test_a_result_of_another_decoding_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stage 13 was killed after it wrote the new hypotheses."""
    folder = experiment(tmp_path, 9) / "decode/test/score_cer"
    (folder / "result.txt").write_text(result_without_sclite(folder))
    os.utime(folder / "result.txt", (1, 1))
    main(["--exp", f"a={tmp_path}"])  # as a copy may be: older, but true
    assert "CER a test 0.0417" in capsys.readouterr().out
    lines = (folder / "hyp.trn").read_text().splitlines(keepends=True)
    (folder / "hyp.trn").write_text("".join([lines[0].replace("很", "狠"), *lines[1:]]))
    with pytest.raises(
        UserError, match=r"result.txt: is older than hyp.trn and counts 9 errors where that has 10: run"
    ):
        main(["--exp", f"a={tmp_path}"])
    os.utime(folder / "result.txt")
    main(["--exp", f"a={tmp_path}"])
