"""A masked language model chooses between two characters: against a slow reference, and where the answer is known."""

from pathlib import Path

import pytest
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.teacher.choice import Doubt, MaskedChoice
from espnet_gmot.teacher.mlm import Pretrainer, PretrainOptions

# What fills the gap is decided by the neighbour on the right, or on the left.
SENTENCES = [*["他在看书", "她在看树", "书在这里", "树在那里"] * 20]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small masked LM that has learnt these four sentences by heart."""
    out = tmp_path_factory.mktemp("choice")
    run = Pretrainer(PretrainOptions(layers=1, width=64, steps=500, lr=0.003, mask_rate=0.2), SENTENCES, out)
    run.train(1e9)
    run.save()
    return out


def test_it_chooses_what_fits_the_sentence(trained: Path) -> None:
    judge = MaskedChoice(str(trained))
    doubts = [Doubt("他在看", "", "书", "树"), Doubt("她在看", "", "树", "书"), Doubt("", "在这里", "书", "树")]
    right = judge([*doubts, Doubt("", "在那里", "树", "书")])
    assert all(value is not None and value > 2 for value in right)
    # the other way round it is as sure of the contrary
    swapped = judge([Doubt(each.before, each.after, each.theirs, each.ours) for each in doubts])
    assert swapped == pytest.approx([-value for value in right[:3] if value is not None], abs=1e-5)
    # without a sentence it can't know: it says the same of both
    assert judge([doubts[0].alone]) == judge([doubts[2].alone]) and doubts[0].alone == Doubt("", "", "书", "树")


def test_against_a_slow_reference(trained: Path) -> None:
    judge = MaskedChoice(str(trained))
    doubts = [Doubt("他在", "书", "看", "那"), Doubt("", "在这", "书", "里"), Doubt("书在那", "", "里", "她")] * 40
    for doubt, value in zip(doubts[:3], judge(doubts)[-3:], strict=True):
        tokenizer = judge.tokens.tokenizer
        encoded = tokenizer(f"{doubt.before}[MASK]{doubt.after}", return_tensors="pt")
        place = int((encoded["input_ids"][0] == tokenizer.mask_token_id).nonzero())
        with torch.no_grad():
            chances = judge.model(**encoded).logits[0, place].log_softmax(-1)
        ours, theirs = tokenizer.convert_tokens_to_ids([doubt.ours, doubt.theirs])
        assert value == pytest.approx(float(chances[ours] - chances[theirs]), abs=1e-4)


def test_what_it_cannot_judge(trained: Path) -> None:
    judge = MaskedChoice(str(trained))
    long = "书" * judge.tokens.limit
    assert judge([Doubt("他", "", "龘", "书"), Doubt("他", "", "书", "nba"), Doubt(long, "", "书", "树")]) == [None] * 3
    assert judge([]) == []


def test_an_encoder_alone_predicts_nothing(tiny_plm: Path) -> None:
    with pytest.raises(UserError, match=r"without a head that predicts masked tokens; .*pretrain-plm --init"):
        MaskedChoice(str(tiny_plm))
