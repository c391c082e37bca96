"""A masked language model weighs two characters: a slow reference, known answers, and what it can't weigh."""

import shutil
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from espnet_gmot.errors import UserError
from espnet_gmot.teacher import choice
from espnet_gmot.teacher.choice import Doubt, MaskedChoice
from espnet_gmot.teacher.mlm import Pretrainer, PretrainOptions
from tests.teacher.test_architectures import SMALL, save, unigram_tokenizer

# What fills the gap is decided by the neighbour on the right, or on the left.
SENTENCES = ["他在看书", "她在看树", "书在这里", "树在那里"] * 20


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


def test_against_a_slow_reference(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doubts = [Doubt("他在", "书", "看", "那"), Doubt("", "在这", "书", "里"), Doubt("书在那", "", "里", "她")]
    doubts += [Doubt("他", "看书", "在", "那"), Doubt("他在看", "书在这里", "书", "她")] * 3
    judge = MaskedChoice(str(trained))
    # one at a time, two and three together, or all: the batches are cut by memory
    for numbers in (1, 18 * len(judge.tokens.tokenizer), choice._NUMBERS):
        monkeypatch.setattr(choice, "_NUMBERS", numbers)
        for doubt, value in zip(doubts, judge(doubts), strict=True):
            tokenizer = judge.tokens.tokenizer
            encoded = tokenizer(f"{doubt.before}[MASK]{doubt.after}", return_tensors="pt")
            place = int((encoded["input_ids"][0] == tokenizer.mask_token_id).nonzero())
            with torch.no_grad():
                chances = judge.model(**encoded).logits[0, place].log_softmax(-1)
            ours, theirs = tokenizer.convert_tokens_to_ids([doubt.ours, doubt.theirs])
            assert value == pytest.approx(float(chances[ours] - chances[theirs]), abs=1e-4)


def test_what_it_cannot_weigh(trained: Path) -> None:
    judge = MaskedChoice(str(trained))
    half = "书" * (judge.tokens.limit // 2)
    assert judge([Doubt(half[2:], half[:-2], "书", "树")]) != [None]
    lacking = [Doubt("他", "", "龘", "书"), Doubt("他", "", "书", "龘"), Doubt("他", "", "书", "nba")]
    assert judge([*lacking, Doubt(half, half, "书", "树"), Doubt("他", "", "书", "书")]) == [None] * 5
    assert judge([]) == []


def test_a_character_within_a_longer_token_is_left_out(tmp_path: Path) -> None:
    tokenizer = unigram_tokenizer()  # 天气 is one token
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    config = hf.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=40, **SMALL)
    judge = MaskedChoice(save(tmp_path / "plm", hf.BertForMaskedLM(config), tokenizer))
    within, alone = judge([Doubt("今天", "很好", "气", "书"), Doubt("今", "不好", "天", "书")])
    assert within is None and alone is not None


def test_models_that_predict_nothing(tiny_plm: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"an encoder without a head that predicts .*pretrain-plm --init"):
        MaskedChoice(str(tiny_plm))
    config = hf.GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=1)
    with pytest.raises(UserError, match=r"predicts no masked tokens \(gpt2\)"):
        MaskedChoice(save(tmp_path / "gpt2", hf.GPT2LMHeadModel(config), hf.AutoTokenizer.from_pretrained(tiny_plm)))
    config = hf.BertConfig(vocab_size=60, **SMALL)
    with pytest.raises(UserError, match=r"predicts no masked tokens \(bert\)"):  # its tokenizer has no mask
        MaskedChoice(save(tmp_path / "maskless", hf.BertForMaskedLM(config), unigram_tokenizer()))
    broken = tmp_path / "broken"
    shutil.copytree(trained, broken)
    weights = load_file(broken / "model.safetensors")
    lost = next(name for name in weights if name.endswith("layer.0.output.LayerNorm.bias"))
    del weights[lost]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"1 tensors are missing .*LayerNorm.bias"):
        MaskedChoice(str(broken))
