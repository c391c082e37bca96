"""The teacher's rows: one per token, independent of the batch; and what it says when it cannot work."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.hub import is_folder
from espnet_gmot.teacher import PLMTeacher
from tests.teacher.conftest import TEXT


def pieces(teacher: PLMTeacher, text: str) -> list[str]:
    ids = teacher.tokens.encode([text])[0]
    return teacher.tokens.tokenizer.convert_ids_to_tokens(ids)[teacher.tokens.prefix : -teacher.tokens.suffix]


def test_a_row_is_a_character(tiny_plm: Path) -> None:
    teacher = PLMTeacher(str(tiny_plm))
    features, lengths = teacher(["我们去看书"])
    assert features.shape == (1, 5, 32) and features.dtype == torch.float32 and lengths.tolist() == [5]
    for position in range(5):
        changed = list("我们去看书")
        changed[position] = "馆"
        distance = (teacher(["".join(changed)])[0] - features).norm(dim=-1)[0]
        assert distance.argmax() == position and distance[position] > 0.1


def test_batch_equals_single_and_padding_is_zero(tiny_plm: Path) -> None:
    teacher = PLMTeacher(str(tiny_plm), layer=2)
    features, lengths = teacher(TEXT)
    assert lengths.tolist() == [len(text) for text in TEXT]
    for row, length, text in zip(features, lengths, TEXT, strict=True):
        torch.testing.assert_close(row[:length], teacher([text])[0][0], atol=1e-5, rtol=0)
        assert not row[length:].any()


def test_layers_and_special_tokens(tiny_plm: Path) -> None:
    last, special = PLMTeacher(str(tiny_plm)), PLMTeacher(str(tiny_plm), special_tokens=True)
    features, lengths = special(TEXT[:2])
    assert lengths.tolist() == [8, 7]
    torch.testing.assert_close(features[0, 1:7], last(TEXT[:1])[0][0], atol=1e-5, rtol=0)
    assert features[1, 6].abs().sum() > 0 and not features[1, 7].any()  # [SEP] is kept, padding is zero
    assert torch.equal(PLMTeacher(str(tiny_plm), layer=3)(TEXT)[0], last(TEXT)[0])
    assert torch.equal(PLMTeacher(str(tiny_plm), layer=-4)(TEXT)[0], PLMTeacher(str(tiny_plm), layer=0)(TEXT)[0])
    assert not torch.allclose(PLMTeacher(str(tiny_plm), layer=1)(TEXT)[0], last(TEXT)[0], atol=0.1)


def test_several_layers_side_by_side(tiny_plm: Path) -> None:
    teacher = PLMTeacher(str(tiny_plm), layer=[1, 0, -1])
    features, lengths = teacher(TEXT)
    assert teacher.width == 96 and features.shape == (5, 7, 96)
    for place, layer in enumerate((1, 0, 3)):
        alone, expected = PLMTeacher(str(tiny_plm), layer=layer)(TEXT)
        assert torch.equal(features.chunk(3, dim=-1)[place], alone) and torch.equal(lengths, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("去龘看", ["去", "[UNK]", "看"]),
        ("去<unk>看\ufffd", ["去", "[UNK]", "看", "[UNK]"]),
        ("看NBA书", ["看", "n", "##b", "##a", "书"]),
        ("ＮＢ看20", ["n", "##b", "看", "2", "##0"]),
        ("我 们", ["我", "们"]),
        ("café", ["c", "##a", "##f", "##e"]),
    ],
)
def test_unknown_latin_and_digits(tiny_plm: Path, text: str, expected: list[str]) -> None:
    teacher = PLMTeacher(str(tiny_plm))
    assert pieces(teacher, text) == expected
    assert teacher([text])[1].tolist() == [len(expected)]


def test_words_are_spelled_where_the_vocabulary_has_single_characters_only(tiny_plm: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_plm, tmp_path / "chars")
    (folder / "tokenizer.json").unlink()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"今天看abN12"]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": false}')
    teacher = PLMTeacher(str(folder))
    assert pieces(teacher, "看BA12N") == ["看", "[UNK]", "[UNK]", "1", "2", "N"]
    assert pieces(teacher, "看BA") == ["看", "b", "a"]
    assert pieces(teacher, "Nab") == ["N", "a", "b"]


def test_latin_letters_count_by_the_words_that_they_spell(
    tiny_plm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(tiny_plm, tmp_path / "english")
    (folder / "tokenizer.json").unlink()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "march", "thi", "##rd", "go", "a", "b", "c"]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    english = PLMTeacher(str(folder)).tokens
    assert english.check_language(["MARCH THIRD", "go"], 0.5) == (0.0, []) and not caplog.records
    assert not english.cased()  # no letter of THIRD is a token by itself, and all of it is spelled
    rate, lacking = english.unknown(["MARCH 今天", "gox"])
    assert rate == pytest.approx(5 / 10) and lacking == ["今", "天", "g", "o", "x"]
    assert english.check_language(["abc cab", "go"], 0.5)[0] == 0.0
    english.check_language(["abc cab", "go"], 0.5)
    assert caplog.text.count("spells 75 % of the transcripts letter by letter (such as abc cab)") == 1  # once a model


def test_stays_out_of_the_way(tiny_plm: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    teacher = PLMTeacher(str(tiny_plm))
    features, _ = teacher(TEXT)
    assert torch.equal(torch.rand(4), expected)  # loading draws no random numbers of the host's
    assert not features.requires_grad and not isinstance(teacher, torch.nn.Module)
    assert not any(p.requires_grad for p in teacher.encoder.parameters()) and not teacher.encoder.training
    copy = pickle.loads(pickle.dumps(teacher))
    assert len(pickle.dumps(teacher)) < 5000
    assert torch.equal(copy(TEXT)[0], features)
    assert teacher.to("cpu") is teacher and teacher.width == 32


def test_a_folder_needs_no_network(tiny_plm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("network used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert PLMTeacher(str(tiny_plm))(TEXT)[0].shape == (5, 7, 32)


def damaged(source: Path, target: Path, damage: str) -> Path:
    shutil.copytree(source, target)
    if damage == "truncated":
        weights = target / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "json":
        (target / "config.json").write_text("{")
    elif damage == "depth":
        config = target / "config.json"
        config.write_text(config.read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": 5'))
    else:
        (target / damage).unlink()
        (target / damage.replace("tokenizer.json", "vocab.txt")).unlink(missing_ok=True)  # transformers 4 writes both
    return target


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("config.json", "lacks config.json; download"),
        ("model.safetensors", r"lacks weights \(model.safetensors"),
        ("tokenizer.json", "lacks a vocabulary"),
        ("truncated", "model.safetensors is damaged or cut short"),
        ("json", r"config\.json is no JSON \(.*\); download"),
        ("depth", "32 tensors are missing from the weights"),
    ],
)
def test_broken_folders(tiny_plm: Path, tmp_path: Path, damage: str, message: str) -> None:
    folder = damaged(tiny_plm, tmp_path / "plm", damage)
    with pytest.raises(UserError, match=message) as error:
        PLMTeacher(str(folder))(TEXT)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_missing_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp").mkdir()
    for name in (str(tmp_path / "none"), "./none", "exp/none", "a/b/c", ""):
        with pytest.raises(UserError, match="there is no such folder; give a folder"):
            is_folder(name)
    assert not is_folder("bert-base-chinese") and not is_folder("hfl/rbt3")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        PLMTeacher("no-such-org/no-such-model")(TEXT)


def test_bad_requests(tiny_plm: Path) -> None:
    teacher = PLMTeacher(str(tiny_plm))
    with pytest.raises(UserError, match="number 1 of the batch"):
        teacher(["天", "天" * 41])
    with pytest.raises(UserError, match=r"utterance long: its transcript has 43 tokens, teacher .* takes 40"):
        teacher(["天" * 41], ["long"])
    for layer in (4, -5):
        with pytest.raises(UserError, match=rf"teacher_layer {layer}: .* has 3 layers; give 0"):
            _ = PLMTeacher(str(tiny_plm), layer=layer).width
    for layers in ([1, 4], []):
        with pytest.raises(UserError, match=r"teacher_layer \[.*\]: .* has 3 layers; give 0"):
            _ = PLMTeacher(str(tiny_plm), layer=layers).width
    assert teacher([])[0].shape == (0, 0, 32)


@pytest.mark.parametrize("special", [False, True])
def test_a_transcript_with_nothing_to_read_has_no_row(tiny_plm: Path, special: bool) -> None:
    teacher = PLMTeacher(str(tiny_plm), special_tokens=special)
    features, lengths = teacher(["", "今天", " \ue000"])
    assert lengths.tolist() == [0, 2 + 2 * special, 0] and not features[::2].any()
    torch.testing.assert_close(features[1, : lengths[1]], teacher(["今天"])[0][0], atol=1e-6, rtol=1e-5)
    assert teacher([""])[1].tolist() == [0] and torch.isfinite(teacher([""])[0]).all()


def test_foreign_vocabulary(tiny_plm: Path) -> None:
    foreign = ["的一是了人这中大为上" * 3] * 40
    with pytest.raises(UserError, match=r"lacks 100% of the transcripts' characters \(such as 的 一 是"):
        PLMTeacher(str(tiny_plm))(foreign)
    assert PLMTeacher(str(tiny_plm), max_unknown=1.0)(foreign)[0].shape == (40, 30, 32)
    PLMTeacher(str(tiny_plm))(foreign[:2])  # a few odd transcripts prove nothing
    rate, unknown = PLMTeacher(str(tiny_plm)).tokens.unknown(["今天龘 <unk>", "今龘靐"])
    assert rate == pytest.approx(3 / 6) and unknown == ["龘", "靐"]


@pytest.mark.shared
def test_real_model(shared_plm: Path) -> None:
    teacher = PLMTeacher(str(shared_plm))
    texts = ["今天天气很好", "我们去看NBA2023年的比赛", "银行", "他在银行存钱", "他沿着河岸行走"]
    features, lengths = teacher(texts)
    assert features.shape == (5, 15, 384) and lengths.tolist() == [6, 15, 2, 6, 7]
    torch.testing.assert_close(features[1, :15], teacher(texts[1:2])[0][0], atol=1e-5, rtol=1e-5)
    assert "[UNK]" not in pieces(teacher, texts[1])
    # 行 of a bank is closer to 行 of another bank than to 行 of walking
    bank, stored, walk = features[2, 1], features[3, 3], features[4, 5]
    similarity = torch.nn.functional.cosine_similarity
    assert similarity(bank, stored, dim=0) > similarity(bank, walk, dim=0)
