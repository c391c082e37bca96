"""pretrain-plm: it learns, goes on after a kill as if nothing had happened, and saves what a teacher can load."""

import json
from pathlib import Path

import pytest
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.teacher import PLMTeacher, mlm, pretrain
from espnet_gmot.teacher.corpus import Masker, batches, build_tokenizer, encode, read_sentences
from tests.teacher.conftest import TEXT

SMALL = ["--layers", "1", "--width", "32", "--heads", "2", "--batch_size", "16", "--lr", "1e-2", "--seed", "1"]


CHARACTERS = "书电苹大车青衣白茶面"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """160 sentences of one character each: a masked one follows from the rest, not from its frequency."""
    path = tmp_path / "text"
    path.write_text("".join(c * n + "\n" for c in CHARACTERS for n in range(4, 20)), encoding="utf-8")
    return path


def run(text: Path, out: Path, *more: str) -> dict[str, float]:
    assert pretrain.main(["--text", str(text), "--out", str(out), *SMALL, *more]) == 0
    report = json.loads((out / "pretrain.json").read_text())
    assert report["finished"] and not (out / "checkpoint.pt").exists() and not (out / ".saving").exists()
    return report["score"]


def test_learns_and_a_teacher_loads_it(text: Path, tmp_path: Path) -> None:
    before = run(text, tmp_path / "untrained", "--steps", "1", "--lr", "1e-9")
    after = run(text, tmp_path / "plm", "--steps", "140")
    assert after["loss"] < 1.2 < 3 < before["loss"] and before["accuracy"] < 0.3 < 0.55 < after["accuracy"]
    teacher = PLMTeacher(str(tmp_path / "plm"))
    features, lengths = teacher(["书电苹大NBA20"])
    assert features.shape == (1, 9, 32) and lengths.tolist() == [9]
    from transformers import AutoModelForMaskedLM, BertTokenizerFast

    ids = teacher.tokens.encode(["书电苹大NBA20龘"])[0]
    assert ids.count(teacher.tokens.tokenizer.unk_token_id) == 1
    written = BertTokenizerFast(str(tmp_path / "plm/vocab.txt"))
    assert written("书电苹大NBA20龘")["input_ids"] == ids
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "plm").eval()
    masked = teacher.tokens.tokenizer("茶茶茶[MASK]茶茶", return_tensors="pt")
    guess = model(**masked).logits[0, 4].argmax()
    assert teacher.tokens.tokenizer.convert_ids_to_tokens(int(guess)) == "茶"


def test_goes_on_after_a_kill(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(text, tmp_path / "whole", "--steps", "25")
    save, saved = mlm.Pretrainer.save_checkpoint, []

    def killed(self: mlm.Pretrainer) -> None:
        save(self)
        saved.append(self.step)
        if len(saved) in (7, 12):
            raise KeyboardInterrupt

    monkeypatch.setattr(mlm.Pretrainer, "save_checkpoint", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(text, tmp_path / "killed", "--steps", "25", "--save_seconds", "0")
        assert not (tmp_path / "killed/model.safetensors").exists()
    assert saved == list(range(1, 13))
    assert run(text, tmp_path / "killed", "--steps", "25", "--save_seconds", "0") == whole
    monkeypatch.undo()
    assert (tmp_path / "killed/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    monkeypatch.setattr(mlm.Pretrainer, "train", None)  # a finished run trains no more
    assert run(text, tmp_path / "whole", "--steps", "25") == whole


def test_goes_on_after_a_kill_behind_the_last_update(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(text, tmp_path / "whole", "--steps", "3")

    def killed(self: mlm.Pretrainer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mlm.Pretrainer, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(text, tmp_path / "killed", "--steps", "3", "--save_seconds", "0")
    monkeypatch.undo()
    assert run(text, tmp_path / "killed", "--steps", "3", "--save_seconds", "0") == whole


def test_leaves_other_runs_alone(text: Path, tmp_path: Path) -> None:
    run(text, tmp_path / "plm", "--steps", "2")
    with pytest.raises(UserError, match=r"holds a run with other options \(steps was 2, now 3\); .*--overwrite"):
        run(text, tmp_path / "plm", "--steps", "3")
    run(text, tmp_path / "plm", "--steps", "3", "--overwrite")


def test_draws_nothing_from_the_callers_random_numbers(text: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(text, tmp_path / "plm", "--steps", "1")
    assert torch.equal(torch.rand(3), expected)


def test_adapts_a_given_model(tiny_plm: Path, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("".join(f"utt{i} {t}\n" for i, t in enumerate([*TEXT, *TEXT])), encoding="utf-8")
    argv = ["--text", str(path), "--text_format", "kaldi", "--out", str(tmp_path / "plm"), "--init", str(tiny_plm)]
    assert pretrain.main([*argv, "--steps", "3"]) == 0
    adapted, given = PLMTeacher(str(tmp_path / "plm")), PLMTeacher(str(tiny_plm))
    assert adapted.tokens.encode(TEXT) == given.tokens.encode(TEXT)
    difference = (adapted(TEXT)[0] - given(TEXT)[0]).abs().max()
    assert 0 < difference < 0.1  # changed, from where it was


def test_vocabulary() -> None:
    tokenizer = build_tokenizer(["今天，カナ！", "今Ab今"], min_count=1)
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    assert tokens[:6] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "今"]
    assert {"##a", "##9", "##カ"} <= set(tokens) and not {"##今", "##，", "A"} & set(tokens)
    assert tokenizer.tokenize("今Zカナ龘") == ["今", "z", "##カ", "##ナ", "[UNK]"]
    assert "天" not in build_tokenizer(["今天", "今"], min_count=2).get_vocab()


def test_encode_cuts_long_sentences_and_skips_unknown_ones() -> None:
    tokenizer = build_tokenizer(["今天天"])
    ids = encode(tokenizer, ["今天天今天", "龘龘", "今"], 4)
    assert [tokenizer.convert_ids_to_tokens(i)[1:-1] for i in ids] == [["今", "天"], ["天", "今"], ["天"], ["今"]]


def test_batches_cover_an_epoch_with_similar_lengths() -> None:
    lengths = torch.randint(1, 50, (1000,)).tolist()
    epoch = list(batches(lengths, 16, torch.Generator().manual_seed(1)))
    assert sorted(i for batch in epoch for i in batch) == list(range(1000))
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in epoch)
    assert padded < 1.1 * sum(lengths)
    assert epoch != list(batches(lengths, 16, torch.Generator().manual_seed(2)))


def test_masking() -> None:
    tokenizer = build_tokenizer(TEXT)
    sequences = encode(tokenizer, TEXT * 100, 64)
    batch = Masker(tokenizer, 0.3)(sequences)
    masked = batch["labels"] != -100
    originals = torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in sequences], batch_first=True)
    assert torch.equal(batch["labels"][masked], originals[masked])
    assert torch.equal(batch["input_ids"][~masked], originals[~masked])
    assert not masked[originals <= tokenizer.mask_token_id].any()  # no padding, [CLS], [SEP]
    tokens = originals > tokenizer.mask_token_id
    assert masked.sum() / tokens.sum() == pytest.approx(0.3, abs=0.04)
    assert all((Masker(tokenizer, 0.01)(sequences[:1])["labels"] != -100).any() for _ in range(5))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--mask_rate", "1.5", r"--mask_rate 1.5: must lie between 0 and 1"),
        ("--steps", "0", r"--steps 0: must be at least 1"),
        ("--heads", "5", r"--width 32: must be a multiple of --heads 5"),
        ("--max_length", "1000", r"--max_length 1000: must lie between 8 and 512"),
        ("--lr", "-1", r"--lr -1.0: must lie"),
        ("--vocab_min_count", "999", r"use a lower --vocab_min_count"),
        ("--init", "./none", r"--layers 1: is for new models; remove it or --init"),
        ("--device", "cuda:9", r"--device cuda:9: not usable here"),
    ],
)
def test_bad_options(text: Path, tmp_path: Path, option: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(text, tmp_path / "plm", option, value)


def test_bad_text(text: Path, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("今天\n\n今天\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"--text .*one: 1 different sentences; give a text with at least two"):
        read_sentences([tmp_path / "one"], "plain")
    with pytest.raises(UserError, match="160 of 160 utterances have no transcript"):
        read_sentences([text], "kaldi")
    with pytest.raises(UserError, match=r"'./none': there is no such folder"):
        pretrain.main(["--text", str(text), "--out", str(tmp_path / "plm"), "--init", "./none"])
