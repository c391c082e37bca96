"""Whether a language model tells the right place from the wrong one: counted by hand, and the command."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.report import ask, homophones
from espnet_gmot.report.cer import edits
from espnet_gmot.report.cli import main
from espnet_gmot.report.knowledge import ALL, Knowledge, read_knowledge, render
from espnet_gmot.teacher.choice import Doubt
from espnet_gmot.teacher.mlm import Pretrainer, PretrainOptions
from tests.report.test_report import experiment


def test_a_place_as_heard_and_as_said() -> None:
    sentence = [edits("今天", "今天也")[-1], *edits("他看书啊", "她看书")]
    assert [edit.kind for edit in sentence] == ["insertion", "substitution", "correct", "correct", "deletion"]
    assert ask.doubt(sentence, 1, "hypothesis", "他", "她") == Doubt("也", "看书", "他", "她")
    assert ask.doubt(sentence, 1, "reference", "他", "她") == Doubt("", "看书啊", "他", "她")
    spaced = edits(["今", "<space>", "好"], ["今", "<space>", "号"])
    assert ask.doubt(spaced, 2, "reference", "好", "号") == Doubt("今 ", "", "好", "号")


def test_substitutions_take_turns_among_places_where_the_other_is_right() -> None:
    sentences = {"a": edits("他他他", "她她她"), "b": edits("今她", "今她"), "c": edits("她马", "她妈")}
    # 马 → 妈 has no place where 妈 is right
    assert ask.pairs(sentences) == [("a", 0, "b", 1), ("a", 1, "c", 0), ("a", 2, "b", 1)]


def test_answers_by_hand() -> None:
    pytest.importorskip("pypinyin")
    weights = {
        Doubt("", "去", "他", "她"): 1.0,  # a, as heard and as said
        Doubt("", "来", "他", "她"): 0.5,  # b as heard: the wrong place, less likely by half a nat
        Doubt("", "来了", "他", "她"): 1.00001,  # b as said: a tie
        Doubt("", "来", "高", "她"): None,
    }

    def judge(doubts: Sequence[Doubt]) -> list[float | None]:
        return [weights.get(each, 0.0) for each in doubts]

    sentences = {"a": edits("他去", "她去"), "b": edits("她来了", "她来"), "c": edits("高去", "她去")}
    assert ask.ask([sentences], judge) == [("a", homophones.TONED, 1.0, 0.5)]
    weights[Doubt("", "来", "高", "她")] = 3.0
    assert ask.ask([sentences], judge)[1:] == [("c", homophones.OTHER, 0.0, 0.5)]


class Row:
    """What is read of a scored experiment."""

    def __init__(self, **sentences: tuple[str, str]) -> None:
        self.alignments = {key: edits(*pair) for key, pair in sentences.items()}


def test_shares_and_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pypinyin")

    class Judge:
        """Knows what goes with 去, in sentences that are right."""

        def __init__(self, model: str) -> None:
            self.sign = 1.0 if model == "good" else -1.0

        def __call__(self, doubts: Sequence[Doubt]) -> list[float | None]:
            return [self.sign * ("去" in each.after) * ("哪" not in each.before + each.after) for each in doubts]

    monkeypatch.setattr(ask, "MaskedChoice", Judge)
    # two seeds; the second hears 哪 in a, and doesn't err in c; 马 → 妈 has no other place
    right = {"b": ("她好", "她好"), "d": ("马", "妈")}
    rows = [
        Row(a=("他去了", "她去了"), c=("他去", "她去"), **right),
        Row(a=("他去了", "她去哪"), c=("他去", "他去"), **right),
    ]
    found = ask.knowledge({("ctc", "dev"): rows}, ["good", "bad"])  # type: ignore[dict-item]
    assert [(each.teacher, each.sound) for each in found] == [
        (teacher, sound)
        for teacher in ("good", "bad")
        for sound in (homophones.TONED, homophones.TONELESS, homophones.OTHER, ALL)
    ]
    toned, toneless, other, all_ = found[:4]
    # a twice and c once; a's second seed is a tie as heard. Groups by utterance: (1, 0.5) and (1)
    assert (toned.substitutions, toned.asked, toned.said) == (3, 3, 1.0)
    assert toned.heard == pytest.approx(2.5 / 3)
    residuals = 1.5 - 2 * 2.5 / 3, 1 - 2.5 / 3
    assert toned.heard_error == pytest.approx(math.sqrt(2 * sum(r * r for r in residuals)) / 3)
    assert (toneless.substitutions, toneless.asked) == (2, 0) and math.isnan(toneless.heard)
    # 了 → 哪 isn't asked: 哪 is right nowhere
    assert (other.substitutions, other.asked) == (1, 0)
    assert (all_.substitutions, all_.asked, all_.heard) == (6, 3, toned.heard)
    assert (found[4].heard, found[4].said) == (pytest.approx(0.5 / 3), 0.0)
    lines = [line.split() for line in render(found).splitlines()]
    shown = ["3", "of", "3", "83.3", "±", f"{100 * toned.heard_error:.1f}", "100.0", "±", "0.0"]
    assert ["good", "ctc", "dev", "same", "syllable", "and", "tone", *shown] in lines


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pypinyin")
    exp = experiment(tmp_path / "ctc", 0)
    hypotheses = exp / "decode/test/score_cer/hyp.trn"
    # one sentence says 添 for 天, which is right nowhere, another 好
    lines = hypotheses.read_text(encoding="utf-8").splitlines()
    lines[0], lines[1] = lines[0].replace("天", "添", 1), lines[1].replace("天", "好", 1)
    hypotheses.write_text("\n".join(lines) + "\n", encoding="utf-8")
    plm = Pretrainer(PretrainOptions(layers=1, width=8, heads=1, steps=1), ["今天天气很好"] * 9, tmp_path / "plm")
    (tmp_path / "plm").mkdir()
    plm.save()
    command, teacher, csv = ["--exp", f"ctc={exp}"], str(tmp_path / "plm"), tmp_path / "knowledge.csv"
    main([*command, "--errors", "--teacher", teacher, "--write_knowledge", str(csv)])
    found = read_knowledge(csv)
    assert [(each.substitutions, each.asked) for each in found] == [(1, 0), (0, 0), (1, 1), (2, 1)]
    assert found[2].heard in (0.0, 0.5, 1.0) and found[0].teacher == teacher and isinstance(found[0], Knowledge)
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [teacher, "ctc", "test", "same", "syllable", "and", "tone", "0", "of", "1", "–", "–"] in out
    page = tmp_path / "page.html"
    main([*command, "--html", str(page), "--knowledge", str(csv)])
    assert '<h2 id="knowledge">' in page.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="--teacher: goes with --errors"):
        main([*command, "--teacher", teacher])
    with pytest.raises(UserError, match="--write_knowledge: goes with --teacher"):
        main([*command, "--errors", "--write_knowledge", str(csv)])
    with pytest.raises(UserError, match="there is no such folder"):
        main([*command, "--errors", "--teacher", teacher, str(tmp_path / "nothing" / "here")])
