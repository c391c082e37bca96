"""Tables: what the one reader accepts, what it names, and that every command reads with it."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from espnet_gmot.corpora.aishell import main as prepare_data
from espnet_gmot.corpora.aishell import read_corpus
from espnet_gmot.corpora.unpack import unpack
from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.tables import (
    clean_text,
    combine_data_dirs,
    count_lines,
    read_table,
    read_transcripts,
    split_table,
    write_data_dir,
    write_table,
)
from espnet_gmot.kaldi.wav import read_wav_scp
from espnet_gmot.recipe.format import write_lm_text
from espnet_gmot.recipe.lm import clean_copy
from espnet_gmot.recipe.score import write_trn
from espnet_gmot.recipe.speed import perturb_training_set
from espnet_gmot.recipe.token_list import make_token_list
from espnet_gmot.report.cer import read_trn
from espnet_gmot.teacher.corpus import read_sentences
from tests.recipe.corpus import TRANSCRIPT, write_corpus
from tests.recipe.test_format import layout

PLAIN = "u1 今天\nu2 天气 好\n"
TABLE = {"u1": "今天", "u2": "天气 好"}
SAME = {
    "plain": PLAIN.encode(),
    "bom": b"\xef\xbb\xbf" + PLAIN.encode(),
    "bom at a joint": "u1 今天\n\ufeffu2 天气 好\n".encode(),
    "crlf": PLAIN.replace("\n", "\r\n").encode(),
    "tabs": PLAIN.replace("u1 ", "u1\t").replace("u2 ", "u2 \t").encode(),
    "blank lines": ("\n\n" + PLAIN.replace("\n", "  \n\r\n") + "\n \n").encode(),
    "no last newline": PLAIN.strip().encode(),
    "ideographic space after the id": PLAIN.replace("u1 ", "u1\u3000").encode(),
    "trailing spaces": PLAIN.replace("\n", " \u3000\xa0\n").encode(),
}
ODD = ["\u3000", "\u2028", "\u2029", "\x85", "\xa0", "\u2003", "\u202f", "\x0b", "\x1c"]
INVISIBLE = ["\u200b", "\ufeff", "\u2060", "\u200e", "\xad", "\x00", "\x7f"]
INVISIBLE += ["\ufe0f", "\u034f", "\u3164", "\ufff9", "\U000e0041", "\U000e0100"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("content", SAME.values(), ids=SAME.keys())
def test_the_same_table(place: Path, content: bytes) -> None:
    Path("t").write_bytes(content)
    assert read_table("t") == TABLE == read_transcripts("t")
    assert count_lines("t") == 2
    split_table("t", ["a", "b"])
    assert read_table("a") | read_table("b") == TABLE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PLAIN.encode("gb18030"), r"t: not UTF-8 \(.*\); convert it, e\.g\. iconv -f GB18030 -t UTF-8 t > NEW"),
        (PLAIN.encode("utf-16"), r"t: not UTF-8 .* iconv -f UTF-16 -t UTF-8 t > NEW"),
        (b"u1 a\n\nu2 b\nu1 c\n", r"t:4: u1 is already on line 1; keep one line for each utterance"),
        (b"", r"t: empty; it must hold"),
        (b"\xef\xbb\xbf\r\n \n", r"t: empty; it must hold"),
        (None, r"t: no such file"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(place: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        Path("t").write_bytes(content)
    for reader in (read_table, read_transcripts):
        with pytest.raises(UserError, match=f"^{message}") as error:
            reader("t")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("character", ODD)
def test_unusual_spaces_become_plain_ones(place: Path, character: str, caplog: pytest.LogCaptureFixture) -> None:
    Path("t").write_text(f"u1 今{character}天\nu2 好\nu3 天{character}{character}气\n", encoding="utf-8", newline="")
    with caplog.at_level(logging.WARNING):
        assert read_transcripts("t") == {"u1": "今 天", "u2": "好", "u3": "天 气"}
    assert caplog.messages == ["t: 2 transcripts held invisible characters or unusual spaces, the first is u1: cleaned"]


@pytest.mark.parametrize("character", INVISIBLE)
def test_invisible_characters_vanish(place: Path, character: str, caplog: pytest.LogCaptureFixture) -> None:
    Path("t").write_text(f"u1 今{character}天{character}\n{character}u2 好\n", encoding="utf-8", newline="")
    with caplog.at_level(logging.WARNING):
        assert read_transcripts("t") == {"u1": "今天", "u2": "好"}
    assert "t: 1 transcripts held" in caplog.text


def test_clean_text_is_stable_and_keeps_joiners() -> None:
    assert clean_text("  a \t b ") == "a b" == clean_text(clean_text("  a \t b "))
    assert clean_text("می\u200cخواهم") == "می\u200cخواهم"


def test_paths_are_not_cleaned(place: Path) -> None:
    Path("wav.scp").write_text("u1 a\u3000b\u200bc.wav\n", encoding="utf-8")
    assert read_wav_scp("wav.scp") == {"u1": "a\u3000b\u200bc.wav"}


def test_empty_transcripts_are_counted(place: Path) -> None:
    Path("t").write_text("u1 今\nu2\nu3 \u200b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"t: 2 of 3 utterances have no transcript, the first is u2"):
        read_transcripts("t")
    assert read_transcripts("t", allow_empty=True) == {"u1": "今", "u2": "", "u3": ""}


def test_tables_are_sorted_and_unique(place: Path) -> None:
    write_table("t", {"b": "2", "B": "1", "一": "3"})
    assert Path("t").read_text() == "B 1\nb 2\n一 3\n"
    stamp = Path("t").stat().st_mtime_ns
    write_table("t", {"一": "3", "b": "2", "B": "1"})
    assert Path("t").stat().st_mtime_ns == stamp  # the same content is not written again
    Path("t").write_text("".join(f"{number}\n" for number in range(7)))
    split_table("t", ["x", "y", "z"])
    assert [len(Path(part).read_text().split()) for part in "xyz"] == [3, 2, 2]


def test_only_common_utterances_are_kept(place: Path) -> None:
    assert write_data_dir("d", {"text": {"a": "1", "b": "2"}, "utt2spk": {"b": "s", "c": "s"}}) == 1
    assert Path("d/spk2utt").read_text() == "s b\n"
    with pytest.raises(UserError, match=r"no utterance occurs in all of its tables \(text 1, utt2spk 1\)"):
        write_data_dir("e", {"text": {"a": "1"}, "utt2spk": {"b": "s"}})


def test_combining_shared_utterances_is_an_error(place: Path) -> None:
    write_data_dir("a", {"text": {"u": "一"}, "utt2spk": {"u": "s"}})
    with pytest.raises(UserError, match="u also occurs in another"):
        combine_data_dirs("c", ["a", "a"])


# ---- every command reads tables with this reader


def speed(table: bytes) -> dict[str, str]:
    """Stage 2."""
    write_data_dir("data/train", {"utt2spk": dict.fromkeys(TABLE, "s"), "wav.scp": dict.fromkeys(TABLE, "a.wav")})
    Path("data/train/text").write_bytes(table)
    perturb_training_set("train", "0.9")
    return {key.removeprefix("sp0.9-"): text for key, text in read_table("data/train_sp/text").items()}


def lm_text(table: bytes) -> dict[str, str]:
    """Stage 4."""
    Path("text").write_bytes(table)
    write_lm_text(layout("--lm_train_text", "text"))
    return read_table("dump/raw/lm_train.txt")


def token_list(table: bytes) -> dict[str, str]:
    """Stage 5: that both texts were read follows from their tokens, spaces included."""
    pytest.importorskip("espnet2")
    Path("dump/raw").mkdir(parents=True)
    Path("dump/raw/lm_train.txt").write_bytes(table)
    plan = layout("--token_type", "char")
    make_token_list(plan)
    assert plan.token_list.read_text().split() == ["<blank>", "<unk>", "天", "今", "气", "<space>", "好", "<sos/eos>"]
    return TABLE


def lm_dev_text(table: bytes) -> dict[str, str]:
    """Stage 6: ESPnet's reader must find the same."""
    reader = pytest.importorskip("espnet2.fileio.read_text")
    Path("text").write_bytes(table)
    return reader.read_2columns_text(clean_copy(layout(), Path("text")))


def scoring(table: bytes) -> dict[str, str]:
    """Stage 13."""
    pytest.importorskip("espnet2")
    write_table("dump/raw/test/utt2spk", dict.fromkeys(TABLE, "s"))
    Path("dump/raw/test/text").write_bytes(table)
    write_table("decoded/text", TABLE)
    write_trn(layout(), "word", Path("dump/raw/test"), Path("decoded"), Path("score"))
    assert read_trn("score/ref.trn") == read_trn("score/hyp.trn")
    return {key.removeprefix("s-"): " ".join(words) for key, words in read_trn("score/ref.trn").items()}


def pretraining(table: bytes) -> dict[str, str]:
    """pretrain-plm."""
    Path("text").write_bytes(table)
    return dict(zip(TABLE, read_sentences([Path("text")], "kaldi"), strict=True))


def plain_text(table: bytes) -> dict[str, str]:
    """pretrain-plm with a sentence per line."""
    Path("text").write_bytes(table)
    sentences = read_sentences([Path("text")], "plain")
    return dict(sentence.split(maxsplit=1) for sentence in sentences)


COMMANDS = [speed, lm_text, token_list, lm_dev_text, scoring, pretraining, plain_text]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
@pytest.mark.parametrize("kind", ["bom", "crlf", "tabs", "blank lines", "trailing spaces"])
def test_every_command_reads(place: Path, command: Callable[[bytes], dict[str, str]], kind: str) -> None:
    assert command(SAME[kind]) == TABLE


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_command_cleans(place: Path, command: Callable[[bytes], dict[str, str]]) -> None:
    assert command("u1 今\u200b天\nu2\u3000天气\u2028好\x85\n".encode()) == TABLE


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_command_names_the_encoding(place: Path, command: Callable[[bytes], dict[str, str]]) -> None:
    with pytest.raises(UserError, match=r"not UTF-8 \(.*iconv -f GB18030 -t UTF-8"):
        command(PLAIN.encode("gb18030"))


# ---- AISHELL-1's transcripts


@pytest.fixture
def transcript(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The transcripts of a tiny corpus beside its recordings."""
    for name in ("AISHELL", "AISHELL_URL", "GMOT_MAX_UTTS"):
        monkeypatch.delenv(name, raising=False)
    unpack(write_corpus(place, {"train": 2, "dev": 1, "test": 1}), place)
    return place / TRANSCRIPT


@pytest.mark.parametrize("kind", ["bom", "crlf", "tabs", "blank"])
def test_prepare_data_reads(transcript: Path, kind: str) -> None:
    prepare_data(["--data", "data_aishell", "--out", "expected"])
    text = transcript.read_text(encoding="utf-8")
    made = {"bom": "\ufeff" + text, "crlf": text.replace("\n", "\r\n"), "blank": text + "\n\n"}
    made["tabs"] = "".join(line.replace(" ", "\t", 1) for line in text.splitlines(keepends=True))
    transcript.write_text(made[kind], encoding="utf-8", newline="")
    prepare_data(["--data", "data_aishell", "--missing", "drop"])
    for split in ("train", "dev", "test"):
        for name in ("text", "wav.scp", "utt2spk"):
            assert Path("data", split, name).read_bytes() == Path("expected", split, name).read_bytes()


def test_prepare_data_names_encodings_and_empty_sets(transcript: Path) -> None:
    text = transcript.read_text(encoding="utf-8")
    transcript.write_text(text, encoding="gb18030")
    with pytest.raises(UserError, match=r"aishell_transcript_v0\.8\.txt: not UTF-8 .* iconv -f GB18030"):
        prepare_data(["--data", "data_aishell"])
    transcript.write_text(text.replace("BAC009", "X"), encoding="utf-8")
    with pytest.raises(UserError, match=r"train: no recording has a transcript; do the ids agree\?"):
        prepare_data(["--data", "data_aishell", "--missing", "drop"])
    assert not os.path.exists("data")


def test_words_in_latin_letters_stay_apart(transcript: Path, caplog: pytest.LogCaptureFixture) -> None:
    transcript.write_text(
        "a 我 用 iphone 六 plus\nb hello world 你 好\nc 今\u3000天\u200b很 好\nd 他 说 “ 好 ”\n", encoding="utf-8"
    )
    with caplog.at_level(logging.WARNING):
        texts = read_corpus(Path("data_aishell"))
    assert texts == {"a": "我用iphone六plus", "b": "hello world你好", "c": "今天很好", "d": "他说“好”"}
    assert "1 transcripts held invisible characters or unusual spaces, the first is c" in caplog.text
    assert "1 transcripts hold Latin words or numbers side by side, the first is b: a space stays" in caplog.text
    transcript.write_text("a 我 用 ＰＣ ２ 台 ， 好\n", encoding="utf-8")  # full-width ones likewise
    assert read_corpus(Path("data_aishell")) == {"a": "我用ＰＣ ２台，好"}


def test_lines_of_nothing_visible_and_ids_of_nothing_visible(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("u1 今天\n\x1a\n\u200e\n\u2060\u2060\n", encoding="utf8")
    assert read_table(path) == {"u1": "今天"}
    path.write_text("u1 今天\n\u2060 天气\n", encoding="utf8")
    with pytest.raises(UserError, match=r"text:2: the id '.u2060' is nothing but invisible characters"):
        read_table(path)


def test_lines_that_end_in_carriage_returns_alone(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("u1 今天\ru2 天气\r".encode())
    with pytest.raises(UserError, match=r"text:1: carriage returns within the line; .* tr '\\r' '\\n' < "):
        read_table(path)


def test_what_nobody_could_decode_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "text"
    path.write_text("u1 今天\nu2 今\ufffd天\n", encoding="utf8")
    assert read_transcripts(path)["u2"] == "今\ufffd天"
    assert "1 transcripts hold U+FFFD" in caplog.text and "the first is u2" in caplog.text
