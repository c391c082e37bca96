"""Counting errors, with sclite and without, and the table that reports them."""

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_gmot.errors import UserError
from espnet_gmot.recipe import score
from espnet_gmot.report.cer import Counts, align, count_trn, read_result
from espnet_gmot.report.cli import main as report

# two speakers; by hand: 今天好 → 今天很好 (1 ins), 你好吗 → 你坏 (1 sub, 1 del), 我们 → 我们 (right), A b → a B (right)
REF = "今 天 好\t(S1-u1)\n你 好 吗\t(S1-u2)\n我 们\t(S2-u3)\nA b\t(S2-u4)\n"
HYP = "今 天 很 好\t(S1-u1)\n你 坏\t(S1-u2)\n我 们\t(S2-u3)\na B\t(S2-u4)\n"
BY_HAND = Counts(sentences=4, tokens=10, correct=8, substitutions=1, deletions=1, insertions=1, wrong=2)


def write_trn(folder: Path, ref: str = REF, hyp: str = HYP) -> Path:
    folder.mkdir(parents=True)
    (folder / "ref.trn").write_text(ref)
    (folder / "hyp.trn").write_text(hyp)
    return folder


def distance(a: list[str], b: list[str]) -> int:
    """Edit distance, slow and obvious."""
    table = {(i, j): max(i, j) for i, j in itertools.product(range(len(a) + 1), range(len(b) + 1)) if not (i and j)}
    for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
        table[i, j] = min(table[i - 1, j - 1] + (a[i - 1] != b[j - 1]), table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table[len(a), len(b)]


TOKENS = st.lists(st.sampled_from("一二三"), max_size=7)


@settings(max_examples=60, deadline=None)
@given(TOKENS, TOKENS)
def test_align_is_the_edit_distance(reference: list[str], hypothesis: list[str]) -> None:
    counts = align(reference, hypothesis)
    assert counts.errors == distance(reference, hypothesis)
    assert counts.correct + counts.substitutions + counts.deletions == len(reference) == counts.tokens
    assert counts.correct + counts.substitutions + counts.insertions == len(hypothesis)
    assert counts.wrong == (reference != hypothesis)


def test_counts_by_hand(tmp_path: Path) -> None:
    counts = count_trn(write_trn(tmp_path / "s"))
    assert counts == BY_HAND
    assert counts.rate == pytest.approx(0.3)


@pytest.mark.parametrize("sclite", [True, False])
def test_result_with_and_without_sclite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sclite: bool) -> None:
    if sclite and score.find_sclite() is None:
        pytest.skip("sclite is not installed (Debian's sctk)")
    if not sclite:
        monkeypatch.setattr(score, "find_sclite", lambda: None)
    folder = write_trn(tmp_path / "exp" / "decode" / "test" / "score_cer")
    text = score.score_folder(folder)
    assert read_result(folder / "result.txt") == BY_HAND
    assert ("Counted by jiwer" in text) is ("may be another" in text) is not sclite
    # what asr.sh's show_asr_result.sh does with it
    found = subprocess.run(
        ["grep", "-e", "Avg", folder / "result.txt"], capture_output=True, text=True, check=True
    ).stdout
    cells = found.replace("Sum/Avg", "").replace("|", " ").split()
    assert cells == ["4", "10", "80.0", "10.0", "10.0", "10.0", "30.0", "50.0"]


def test_score_options_need_sclite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "find_sclite", lambda: None)
    with pytest.raises(UserError, match="install Debian's sctk"):
        score.score_folder(write_trn(tmp_path / "s"), "-s")


def test_broken_trn(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hyp\.trn: lacks 1 sentences \(S2-u4\)"):
        count_trn(write_trn(tmp_path / "a", hyp=HYP.replace("a B\t(S2-u4)\n", "")))
    with pytest.raises(UserError, match=r"ref\.trn:1: no \(speaker-utterance\)"):
        count_trn(write_trn(tmp_path / "b", ref="今 天\n"))


def scored(exp: Path, tag: str, name: str, hyp: str = HYP) -> None:
    write_trn(exp / tag / name / "score_cer", hyp=hyp)


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored(tmp_path / "a", "decode", "org/dev")
    scored(tmp_path / "a", "decode", "test", hyp=REF)
    scored(tmp_path / "b", "decode", "test")
    (tmp_path / "b/decode/test/score_cer/result.txt").write_text(
        "| Sum |    4     10 |    7    3    0    4    7    4 |\n"
    )
    report(["--exp", f"ctc={tmp_path}/a", f"gmot={tmp_path}/b"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["system", "set", "sentences"]
    assert lines[2].split() == ["ctc", "dev", "4", "10", "1", "1", "1", "30.00", "jiwer", "(from", "trn)"]
    assert lines[4].split() == ["gmot", "test", "4", "10", "3", "0", "4", "70.00", "sclite"]
    assert lines[-3:] == ["CER ctc dev 0.3000", "CER ctc test 0.0000", "CER gmot test 0.7000"]


def test_report_says_what_is_wrong(tmp_path: Path) -> None:
    scored(tmp_path / "a", "decode", "test")
    with pytest.raises(UserError, match="set 'dev' is not scored; there are test"):
        report(["--exp", f"ctc={tmp_path}/a", "--sets", "dev test"])
    scored(tmp_path / "a", "beam10", "test")
    with pytest.raises(UserError, match="2 decodings; choose one by --inference_tag: beam10, decode"):
        report(["--exp", f"ctc={tmp_path}/a"])
    with pytest.raises(UserError, match="run stages 12 and 13 first"):
        report(["--exp", f"ctc={tmp_path}/nowhere"])
    with pytest.raises(UserError, match="write NAME=DIR"):
        report(["--exp", "ctc"])
