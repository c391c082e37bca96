"""Stages 3 and 4 without ESPnet: tables, audio of every kind, features, filtering."""

import errno
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from espnet_gmot.errors import UserError
from espnet_gmot.files import writing
from espnet_gmot.kaldi.tables import read_table, write_data_dir, write_table
from espnet_gmot.recipe import format as formatting
from espnet_gmot.recipe import options
from espnet_gmot.recipe.audio import format_wav_scp, load
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.speed import perturb_training_set
from tests.recipe.corpus import wav_bytes


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_set(name: str, texts: dict[str, str], **tables: dict[str, str]) -> None:
    """A data directory of one speaker."""
    write_data_dir(Path("data") / name, {"text": texts, "utt2spk": dict.fromkeys(texts, "s"), **tables})


def test_segments_need_asr_sh(place: Path) -> None:
    write_set("train", {"u": "一"}, **{"wav.scp": {"u": "u.wav"}})
    Path("data/train/segments").write_text("u r 0 1\n")
    with pytest.raises(UserError, match=r"segments: .* --espnet_root"):
        perturb_training_set("train", "0.9 1.0")


def test_bad_speeds(place: Path) -> None:
    with pytest.raises(UserError, match="'fast' is not a speed"):
        perturb_training_set("train", "0.9 fast")


def test_resampling_and_files_that_already_fit(place: Path) -> None:
    Path("a.wav").write_bytes(wav_bytes("一二", rate=8000))
    wave, rate, _ = load("a", "a.wav", 16000)
    assert (len(wave), rate) == (4800, 16000)
    wave, _, as_it_is = load("a", "cat a.wav |", 8000, "wav")
    assert np.array_equal(wave, soundfile.read("a.wav")[0]) and not as_it_is
    assert load("a", "a.wav", 8000, "wav")[2] is True
    assert load("a", "a.wav", 8000, "flac")[2] is False


@pytest.mark.parametrize("audio_format", ["wav", "flac", "wav.ark", "flac.ark"])
def test_formats(place: Path, audio_format: str) -> None:
    entries = {}
    for key in ("u1", "u2", "u3"):
        Path(f"{key}.wav").write_bytes(wav_bytes("一二"))
        entries[key] = str(Path(f"{key}.wav").absolute())
    write_table("wav.scp", entries)
    for processes in (1, 2):
        made = format_wav_scp(
            "wav.scp", f"out{processes}", audio_format=audio_format, fs=16000, nj=2, processes=processes
        )
        assert made["utt2num_samples"] == dict.fromkeys(entries, "4800")
        assert len(list(Path(f"out{processes}/data").glob("format.*"))) == 2
        for key, entry in made["wav.scp"].items():
            assert (entry == entries[key]) is (audio_format == "wav")
            wave = kaldiio.load_mat(entry)[1] if "ark" in audio_format else soundfile.read(entry)[0]
            assert np.array_equal(wave, soundfile.read(entries[key])[0])


def test_only_changed_parts_are_formatted_again(place: Path) -> None:
    for key in ("u1", "u2"):
        Path(f"{key}.wav").write_bytes(wav_bytes("一二"))
    write_table("wav.scp", {"u1": "u1.wav", "u2": "u2.wav"})
    command = {"audio_format": "wav.ark", "fs": 16000, "nj": 2, "processes": 1}
    format_wav_scp("wav.scp", "out", **command)
    stamps = [path.stat().st_mtime_ns for path in sorted(Path("out").rglob("*.ark"))]
    Path("u2.wav").write_bytes(wav_bytes("三三三"))
    made = format_wav_scp("wav.scp", "out", **command)
    assert made["utt2num_samples"] == {"u1": "4800", "u2": "7200"}
    first, second = (path.stat().st_mtime_ns for path in sorted(Path("out").rglob("*.ark")))
    assert first == stamps[0] and second != stamps[1]
    Path("u2.wav").unlink()
    with pytest.raises(UserError, match=r"u2\.wav: No such file"):
        format_wav_scp("wav.scp", "out", **command)


def layout(*words: str) -> Layout:
    sets = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "test", "--nj", "2"]
    return Layout(options.parse([*sets, *words]))


def test_extracted_features_and_filtering(place: Path) -> None:
    rng = np.random.default_rng(0)
    frames = {"long": 30, "short": 10, "silent": 40, "good": 11}
    for name in ("train", "dev", "test"):
        matrices = {key: rng.normal(size=(length, 3)).astype("f") for key, length in frames.items()}
        Path("data", name).mkdir(parents=True)
        kaldiio.save_ark(f"data/{name}/f.ark", matrices, scp=f"data/{name}/feats.scp")
        texts = {"long": "一", "short": "二", "silent": "", "good": "三"}
        write_set(name, texts, **{"feats.scp": read_table(f"data/{name}/feats.scp")})
    # 10 ms frames, as asr.sh assumes: longer than 10 frames, shorter than 30
    plan = layout("--feats_type", "extracted", "--min_wav_duration", "0.1", "--max_wav_duration", "0.3")
    for name in ("train", "dev", "test"):
        formatting.format_set(plan, name, 1)
    assert read_table("dump/extracted/org/train/feats_shape")["long"] == "30,3"
    assert Path("dump/extracted/test/feats_dim").read_text() == "3\n"
    formatting.filter_set(plan, "train")
    assert list(read_table("dump/extracted/train/feats.scp")) == ["good"]
    text = Path("data/test/text").read_text()
    Path("data/test/text").write_text(text.replace("good 三\n", ""))
    with pytest.raises(UserError, match=r"data/test: 1 of 4 utterances lack a line in a table: good .*must be whole"):
        formatting.format_set(plan, "test", 1)
    Path("data/test/text").write_text(text)
    formatting.format_set(plan, "test", 1)
    assert list(read_table("dump/extracted/test/text")) == sorted(frames)  # test sets are never filtered
    formatting.write_lm_text(plan)
    assert Path("dump/extracted/lm_train.txt").read_text() == "good 三\nlong 一\nshort 二\n"
    with pytest.raises(UserError, match=r"feats_type: no such file; run stages 3 and 4"):
        plan.speech(Path("dump/extracted/nowhere"))


@pytest.mark.parametrize("cut", [4, 8, 12, 16, 20])
def test_features_that_dont_fit(place: Path, cut: int) -> None:
    Path("data/train").mkdir(parents=True)
    matrices = {"a": np.zeros((4, 3), "f"), "b": np.zeros((4, 2), "f")}
    kaldiio.save_ark("data/train/f.ark", matrices, scp="data/train/feats.scp")
    with pytest.raises(UserError, match=r"different widths \(\[2, 3\]\)"):
        formatting.describe_features(Path("data/train/feats.scp"))
    Path("data/train/f.ark").write_bytes(Path("data/train/f.ark").read_bytes()[:cut])
    with pytest.raises(UserError, match=r"feats\.scp: \w: .*unreadable features"):
        formatting.describe_features(Path("data/train/feats.scp"))


def test_full_disk_is_explained() -> None:
    with pytest.raises(UserError, match=r"out/x: no space left on the disk .*; make room"), writing():
        raise OSError(errno.ENOSPC, "No space left on device", "out/x")
    with pytest.raises(OSError, match="Bad file"), writing():
        raise OSError(errno.EBADF, "Bad file descriptor")
