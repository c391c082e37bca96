"""check-data: what an asr.sh would misread or train on by halves is named, and mended when told so."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_gmot import launcher
from espnet_gmot.kaldi.check_data import misread
from espnet_gmot.kaldi.tables import read_table

KEYS = [f"s1-u{index}" for index in range(6)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/train of six recordings, a seventh in data/dev."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, keys in (("train", KEYS), ("dev", ["s2-v0"])):
        data = tmp_path / "data" / name
        data.mkdir(parents=True)
        for key in keys:
            soundfile.write(data / f"{key}.wav", 0.1 * rng.standard_normal(1600), 16000)
        for table, value in (("wav.scp", "data/{0}/{1}.wav"), ("text", "你好"), ("utt2spk", "{1:.2}")):
            (data / table).write_text("".join(f"{key} {value.format(name, key)}\n" for key in keys), "utf8")
        speakers = dict.fromkeys(key[:2] for key in keys)
        (data / "spk2utt").write_text("".join(f"{s} {' '.join(k for k in keys if k[:2] == s)}\n" for s in speakers))
    return tmp_path / "data"


ALL = ["text", "utt2spk", "wav.scp"]


def run(*words: str) -> int:
    return launcher.main(["check-data", "data/train", "data/dev", *words])


def spoil(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def test_good_folders_stay_as_they_are(folder: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run() == 0 and run("--tidy") == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert "data/train: 6 utterances, fit for ESPnet\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        ("text", b"s1-u0 ", b"\xef\xbb\xbfs1-u0 "),
        ("wav.scp", b"s1-u0 ", b"\xef\xbb\xbfs1-u0 "),
        ("utt2spk", b"s1-u0 ", "s1-u0\u200b ".encode()),
        ("text", "你好".encode(), "你\u3000好".encode()),
        ("text", "你好".encode(), "你\u2028好".encode()),
        ("text", "你好".encode(), "你\u200b好".encode()),
        ("text", "你好".encode(), "你  好".encode()),
        ("wav.scp", b"u0.wav", "u0.wav\ufeff".encode()),
        ("text", b"s1-u1", "\ufeff\ns1-u1".encode()),
        ("text", b"s1-u1", b"\ns1-u1"),
        ("wav.scp", b"s1-u1", b"\r\r\ns1-u1"),
    ],
)
def test_what_espnet_misreads_is_named_and_mended(
    folder: Path, capsys: pytest.CaptureFixture, table: str, old: bytes, new: bytes
) -> None:
    path = folder / "train" / table
    spoil(path, old, new)
    spoilt = path.read_bytes()
    assert run() == 1
    said = capsys.readouterr().err
    assert re.search(
        rf"data/train/{table}: ESPnet misreads [12] of 6 lines, the first is '(s1-u0|.ufeff|line 2)': ", said
    )
    assert "check-data --tidy data/train` writes the tables anew" in said and path.read_bytes() == spoilt
    assert run("--tidy") == 0 and "6 utterances, fit for ESPnet, mended\n" in capsys.readouterr().out
    assert path.with_name(f"{table}.orig").read_bytes() == spoilt
    spoil(path, b"s1-u5", b"\xe2\x80\x8bs1-u5")  # and once more: each content is kept
    again = path.read_bytes()
    assert run("--tidy") == 0 and path.with_name(f"{table}.orig2").read_bytes() == again
    assert misread(path, read_table(path)) == [] and list(read_table(path)) == KEYS and run() == 0


def test_espnets_own_reader_agrees(folder: Path) -> None:
    """What counts as misread is what espnet2's reader makes of the file."""
    read = pytest.importorskip("espnet2.fileio.read_text").read_2columns_text
    path = folder / "train/text"
    lines = ["\ufeffa 你好", "b\t你好", "c 你\u3000好", "d\u3000你好 ", "e 你好\r", "f  你好", "g 你好\u200b", "h"]
    path.write_bytes(("\n".join(lines) + "\n").encode())
    theirs, ours = read(path), {**read_table(path), "c": "你 好"}
    assert misread(path, ours) == [
        *(key for key in ours if theirs.get(key) != ours[key]),
        *(theirs.keys() - ours.keys()),
    ]
    assert misread(path, ours) == ["a", "c", "g", "\ufeffa"]


@pytest.mark.parametrize(
    ("spoiler", "reason"),
    [
        (lambda data: (data / "s1-u3.wav").write_bytes((data / "s1-u3.wav").read_bytes()[:900]), "truncated"),
        (lambda data: (data / "s1-u3.wav").unlink(), "no such file"),
        (lambda data: spoil(data / "text", "s1-u3 你好\n".encode(), b""), "has no line in text"),
        (lambda data: spoil(data / "utt2spk", b"s1-u3 s1\n", b""), "has no line in utt2spk"),
    ],
)
def test_bad_utterances_are_listed_and_left_out_only_when_allowed(
    folder: Path, capsys: pytest.CaptureFixture, spoiler: object, reason: str
) -> None:
    spoiler(folder / "train")
    assert run() == 1
    said = capsys.readouterr().err
    assert "1 of 6 utterances can't be used, the first is s1-u3: " in said and reason in said
    assert "skip that many by python3 -m espnet_gmot check-data --tidy data/train --max_bad 1\n" in said
    assert "s1-u3 " in (folder / "train/bad_utterances").read_text()
    assert run("--max_bad", "1") == 1 and "that --tidy writes: give both" in capsys.readouterr().err
    assert run("--max_bad", "1", "--tidy") == 0
    for table in ("wav.scp", "text", "utt2spk"):
        assert list(read_table(folder / "train" / table)) == [key for key in KEYS if key != "s1-u3"]
    assert read_table(folder / "train/spk2utt")["s1"].split() == [key for key in KEYS if key != "s1-u3"]
    assert run() == 0


def test_test_sets_stay_whole_and_share_with_each_other(folder: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["check-data", "data/dev", "--tests", "data/train", "data/train2", "--tidy", "--max_bad", "9"]
    shutil.copytree(folder / "train", folder / "train2")
    assert launcher.main(words) == launcher.main(["check-data", *words[2:]]) == 0
    (folder / "train/s1-u3.wav").unlink()
    assert launcher.main(words) == 1 and "a test set must be whole" in capsys.readouterr().err
    assert len(read_table(folder / "train/text")) == 6
    assert launcher.main(["check-data"]) == 1 and "which data directories?" in capsys.readouterr().err


def test_recordings_of_the_training_set_and_missing_tables(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "dev/s2-v0.wav").write_bytes((folder / "train/s1-u1.wav").read_bytes())
    assert run() == 1 and "s1-u1" in capsys.readouterr().err
    (folder / "dev/text").unlink()
    assert run() == 1 and "data/dev/text: no such file" in capsys.readouterr().err
    (folder / "dev/text").write_bytes("s2-v0 你好\n".encode("gb18030"))
    assert run() == 1 and "iconv -f GB18030 -t UTF-8 data/dev/text" in capsys.readouterr().err


def test_segments_cut_utterances_out_of_recordings(folder: Path, capsys: pytest.CaptureFixture) -> None:
    data = folder / "train"
    (data / "wav.scp").write_text("r1 data/train/s1-u0.wav\nr2 data/train/s1-u1.wav\n")
    (data / "segments").write_text("".join(f"{key} r{1 + int(key[-1]) % 2} 0 0.05\n" for key in KEYS))
    assert run() == 0
    good = (data / "segments").read_text()
    (data / "segments").write_text(good.replace("s1-u2 r1", "s1-u2 r3"))
    assert run() == 1 and "s1-u2: is cut out of r3, which wav.scp hasn't" in capsys.readouterr().err
    for wrong in ("s1-u2 r1 0", "s1-u2 r1 0.06 0.05", "s1-u2 r1 0 9", "s1-u2 r1 a b", "s1-u2 r1 nan 0.05"):
        (data / "segments").write_text(good.replace("s1-u2 r1 0 0.05", wrong))
        assert run() == 1 and "the first is s1-u2: " in capsys.readouterr().err
    (data / "segments").write_text(good.replace("s1-u2 r1 0 0.05", "s1-u2 r1 0.05 -1"))  # to the end
    assert run() == 0
    (data / "segments").write_text(good)
    (data / "s1-u1.wav").unlink()
    assert run() == 1 and "3 of 6 utterances can't be used, the first is s1-u1: " in capsys.readouterr().err
    assert run("--tidy", "--max_bad", "3") == 0
    assert list(read_table(data / "segments")) == KEYS[::2] and list(read_table(data / "wav.scp")) == ["r1", "r2"]


def test_segments_of_one_recording_may_be_in_two_sets(folder: Path, capsys: pytest.CaptureFixture) -> None:
    times = {"train": "0 0.05", "dev": "0.05 0.1"}
    for name, keys in (("train", KEYS), ("dev", ["s2-v0"])):
        (folder / name / "wav.scp").write_text("r1 data/train/s1-u0.wav\n")
        (folder / name / "segments").write_text("".join(f"{key} r1 {times[name]}\n" for key in keys))
    assert run() == 0
    (folder / "dev/segments").write_text("s2-v0 r1 0 0.05\n")
    assert run() == 1 and "are also in data/train" in capsys.readouterr().err


def test_kaldi_wants_sorted_tables_and_all_of_them(folder: Path, capsys: pytest.CaptureFixture) -> None:
    data = folder / "train"
    good = {name: (data / name).read_bytes() for name in (*ALL, "spk2utt")}
    lines = good["text"].splitlines(True)
    (data / "text").write_bytes(b"".join(lines[::-1]))
    assert run() == 1 and "data/train/text: not sorted as Kaldi wants it" in capsys.readouterr().err
    for content in (None, b"s1 s1-u0\n"):
        (data / "spk2utt").unlink()
        if content:
            (data / "spk2utt").write_bytes(content)
        (data / "text").write_bytes(good["text"])
        said = "other than utt2spk says" if content else "no such file"
        assert run() == 1 and f"data/train/spk2utt: {said}" in capsys.readouterr().err
        assert run("--tidy") == 0 and {name: (data / name).read_bytes() for name in good} == good
    (data / "utt2spk").write_bytes(good["utt2spk"].replace(b"s1-u3 s1", b"s1-u3"))
    assert run() == 1 and "s1-u3: has no one speaker in utt2spk" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["flac", "ogg", "mp3"])
def test_recordings_without_a_telling_header_are_read(folder: Path, capsys: pytest.CaptureFixture, form: str) -> None:
    data, path = folder / "train", folder / f"train/long.{form}"
    soundfile.write(path, 0.1 * np.random.default_rng(1).standard_normal(160000), 16000)
    spoil(data / "wav.scp", b"data/train/s1-u2.wav", f"data/train/long.{form}".encode())
    assert run() == 0
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    capsys.readouterr()
    assert run() == 1 and "the first is s1-u2: " in capsys.readouterr().err


def test_what_commands_give_is_read(folder: Path, capsys: pytest.CaptureFixture) -> None:
    scp = folder / "train/wav.scp"
    spoil(scp, b"data/train/s1-u2.wav", b"cat data/train/s1-u2.wav |")
    assert run() == 0
    spoil(scp, b"cat data/train/s1-u2.wav |", b"head -c 900 data/train/s1-u2.wav |")
    assert run() == 1 and "the first is s1-u2: " in capsys.readouterr().err


def test_what_was_left_out_before_stays_listed(folder: Path) -> None:
    (folder / "train/bad_utterances").write_text("s1-u9 cut\n")
    assert run() == 0 and (folder / "train/bad_utterances").read_text() == "s1-u9 cut\n"
    (folder / "train/s1-u3.wav").unlink()
    assert run("--tidy", "--max_bad", "1") == run() == 0
    assert list(read_table(folder / "train/bad_utterances")) == ["s1-u3", "s1-u9"]


def test_features_alone_are_read(folder: Path, capsys: pytest.CaptureFixture) -> None:
    kaldiio = pytest.importorskip("kaldiio")
    data = folder / "train"
    kaldiio.save_ark(str(data / "f.ark"), {key: np.ones((3, 2), "f") for key in KEYS}, scp=str(data / "feats.scp"))
    (data / "wav.scp").unlink()
    assert run() == 0
    (data / "f.ark").write_bytes((data / "f.ark").read_bytes()[:-4])
    assert run() == 1 and "the first is s1-u5: " in capsys.readouterr().err
