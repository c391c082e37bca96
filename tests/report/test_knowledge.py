"""Which substitutions a language model would have chosen right: counted by hand."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.report import homophones
from espnet_gmot.report.ask import ask, doubts
from espnet_gmot.report.cer import edits
from espnet_gmot.report.cli import main
from espnet_gmot.report.knowledge import Chosen, read_choices
from espnet_gmot.teacher.choice import Doubt
from espnet_gmot.teacher.mlm import Pretrainer, PretrainOptions
from tests.report.test_report import experiment


def test_a_sentence_as_heard_and_as_said() -> None:
    # an insertion before it and a deletion behind it: each sentence keeps its own
    said = [edits("今天", "今天也")[-1], *edits("他看书啊", "她看书")]
    assert [edit.kind for edit in said] == ["insertion", "substitution", "correct", "correct", "deletion"]
    assert doubts(said) == [(Doubt("也", "看书", "他", "她"), Doubt("", "看书啊", "他", "她"))]


def test_counts_by_hand() -> None:
    pytest.importorskip("pypinyin")

    def judge(asked: Sequence[Doubt]) -> list[float | None]:
        """Is right about 他 in any sentence, about 妈 only where it reads the reference, and doesn't know 龘."""
        found: list[float | None] = []
        for doubt in asked:
            if doubt.ours == "龘":
                found.append(None)
            elif doubt.ours == "他":
                found.append(1.0 if doubt.before + doubt.after else -1.0)
            else:
                found.append(1.0 if "他" in doubt.before else -0.5)
        return found

    found = ask([edits("他妈龘今", "她马高今"), edits("他好", "她好")], judge)
    assert found[homophones.TONED] == [(False, True, True)] * 2  # 他 → 她, twice
    assert found[homophones.TONELESS] == [(False, False, True)]  # 妈 → 马
    assert found[homophones.OTHER] == [None]  # 龘 → 高


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pypinyin")
    exp = experiment(tmp_path / "ctc", 0)
    hypotheses = exp / "decode/test/score_cer/hyp.trn"
    # one sentence says 添 for 天, which isn't in the model's vocabulary, another 夫
    lines = hypotheses.read_text(encoding="utf-8").splitlines()
    lines[0], lines[1] = lines[0].replace("天", "添", 1), lines[1].replace("天", "夫", 1)
    hypotheses.write_text("\n".join(lines) + "\n", encoding="utf-8")
    plm = Pretrainer(
        PretrainOptions(layers=1, width=8, heads=1, steps=1), ["今天天气很好", "夫今天很好"] * 9, tmp_path / "plm"
    )
    (tmp_path / "plm").mkdir()
    plm.save()
    command, teacher = ["--exp", f"ctc={exp}"], str(tmp_path / "plm")
    main([*command, "--errors", "--teacher", teacher, teacher, "--write_choices", str(tmp_path / "choices.csv")])
    found = read_choices(tmp_path / "choices.csv")
    assert len(found) == 6 and found[:3] == found[3:]
    toned, toneless, other = found[:3]
    assert toned == Chosen(teacher, "ctc", "test", homophones.TONED, 1, 0, 0, 0, 0)
    assert toneless == Chosen(teacher, "ctc", "test", homophones.TONELESS, 0, 0, 0, 0, 0)
    assert (other.substitutions, other.judged) == (1, 1) and {other.alone, other.heard, other.said} <= {0, 1}
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [teacher, "ctc", "test", "same", "syllable", "and", "tone", "0/1", "–", "–", "–"] in lines
    page = tmp_path / "page.html"
    main([*command, "--html", str(page), "--choices", str(tmp_path / "choices.csv")])
    assert '<h2 id="knowledge">' in page.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="--teacher: goes with --errors"):
        main([*command, "--teacher", teacher])
    with pytest.raises(UserError, match="--write_choices: goes with --teacher"):
        main([*command, "--errors", "--write_choices", str(tmp_path / "choices.csv")])
    with pytest.raises(UserError, match="there is no such folder"):
        main([*command, "--errors", "--teacher", str(tmp_path / "nothing" / "here")])
