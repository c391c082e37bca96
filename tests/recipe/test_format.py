"""Stages 3 and 4 without ESPnet: tables, audio of every kind, features, filtering."""

import errno
import os
import re
import shutil
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from espnet_gmot.errors import UserError
from espnet_gmot.files import writing
from espnet_gmot.kaldi.ark import read_matrix
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
    assert len(load("a.wav", 16000, "flac")[0]) == 4800
    wave, as_it_is = load("cat a.wav |", 8000, "wav")
    assert np.array_equal(wave, soundfile.read("a.wav")[0]) and not as_it_is
    assert load("a.wav", 8000, "wav")[1] is True
    assert load("a.wav", 8000, "flac")[1] is False


@pytest.mark.parametrize("audio_format", ["wav", "flac", "wav.ark", "flac.ark"])
def test_formats(place: Path, audio_format: str) -> None:
    entries = {}
    for key in ("u1", "u2", "u3"):
        Path(f"{key}.wav").write_bytes(wav_bytes("一二"))
        entries[key] = str(Path(f"{key}.wav").absolute())
    write_table("wav.scp", entries)
    for processes in (1, 2):
        made, _ = format_wav_scp(
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
    made, _ = format_wav_scp("wav.scp", "out", **command)
    assert made["utt2num_samples"] == {"u1": "4800", "u2": "7200"}
    first, second = (path.stat().st_mtime_ns for path in sorted(Path("out").rglob("*.ark")))
    assert first == stamps[0] and second != stamps[1]
    Path("u2.wav").unlink()
    made, bad = format_wav_scp("wav.scp", "out", **command)
    assert (list(made["wav.scp"]), bad) == (["u1"], {"u2": "u2.wav: no such file or directory; restore the file"})


def test_another_nj_leaves_what_is_formatted(place: Path) -> None:
    """nj is a resource: other parts would have other paths, and all that is made from them would be made again."""
    for number in range(6):
        Path(f"u{number}.wav").write_bytes(wav_bytes("一二三四五六"[: number + 1]))
    write_table("wav.scp", {f"u{number}": f"u{number}.wav" for number in range(6)})

    def again(nj: int) -> dict[str, int]:
        """The archives there, each with its time."""
        made, bad = format_wav_scp("wav.scp", "out", audio_format="wav.ark", fs=16000, nj=nj, processes=1)
        assert not bad and made["utt2num_samples"] == {f"u{n}": str(2400 * (n + 1)) for n in range(6)}
        arks = {entry.rpartition(":")[0] for entry in made["wav.scp"].values()}
        assert arks == {str(path) for path in Path("out/data").rglob("*.ark")}  # none is left behind
        assert len(list(Path("out/logs").iterdir())) == len(arks)
        return {path: Path(path).stat().st_mtime_ns for path in arks}

    first = again(4)
    assert len(first) == 4 and first == again(2) == again(6) == again(99)
    shutil.rmtree("out/data/format.3")  # as if killed
    second = again(3)
    assert len(second) == 4 and len(set(first.items()) & set(second.items())) == 3
    for path in Path().glob("u*.wav"):
        os.utime(path, ns=(1, 1))
    assert len(again(2)) == 2
    shutil.copytree("out/data/format.2", "out/data/format.3")  # as earlier versions left them
    shutil.copy("out/logs/wav.2.scp", "out/logs/wav.3.scp")
    assert len(again(2)) == 2


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
    assert read_table("dump/extracted/train/bad_utterances") == {
        "long": "0.3 s: not shorter than --max_wav_duration 0.3",
        "short": "0.1 s: not longer than --min_wav_duration 0.1",
        "silent": "no transcript",
    }
    text = Path("data/test/text").read_text()
    Path("data/test/text").write_text(text.replace("good 三\n", ""))
    with pytest.raises(UserError, match=r"1 of 4 .* good: has no line in data/test/text; a test set must be whole"):
        formatting.format_set(plan, "test", 1)
    Path("data/test/text").write_text(text)
    formatting.format_set(plan, "test", 1)
    assert list(read_table("dump/extracted/test/text")) == sorted(frames)  # test sets are never filtered
    formatting.write_lm_text(plan)
    assert Path("dump/extracted/lm_train.txt").read_text() == "good 三\nlong 一\nshort 二\n"
    with pytest.raises(UserError, match=r"feats_type: no such file; run stages 3 and 4"):
        plan.speech(Path("dump/extracted/nowhere"))


def test_features_are_read_again_only_if_they_change(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(formatting, "read_matrix", lambda entry: read.append(entry) or read_matrix(entry))

    def again() -> int:
        """How many features were read."""
        read.clear()
        made, _, width = formatting.describe_features(Path("feats.scp"), Path("kept"))
        assert width == 3 and made["feats_shape"]["a"] == "4,3"
        return len(read)

    matrices = {"a": np.zeros((4, 3), "f"), "b": np.zeros((5, 3), "f")}
    kaldiio.save_ark("f.ark", matrices, scp="feats.scp")
    assert again() == 2 and again() == 0
    Path("kept/feats_shape").unlink()
    assert again() == 2 and again() == 0
    os.utime("f.ark", ns=(1, 1))  # written anew
    assert again() == 2 and again() == 0
    write_table("feats.scp", read_table("feats.scp") | {"c": "f.ark:9999"})
    assert again() == 3 and again() == 3  # as long as one can't be read
    write_table("feats.scp", {key: entry for key, entry in read_table("feats.scp").items() if key != "c"})
    assert again() == 2 and again() == 0


@pytest.mark.parametrize("cut", [4, 8, 12, 16, 20])
def test_features_that_dont_fit(place: Path, cut: int) -> None:
    Path("data/train").mkdir(parents=True)
    matrices = {"a": np.zeros((4, 3), "f"), "b": np.zeros((4, 2), "f")}
    kaldiio.save_ark("data/train/f.ark", matrices, scp="data/train/feats.scp")
    with pytest.raises(UserError, match=r"different widths \(\[2, 3\]\)"):
        formatting.describe_features(Path("data/train/feats.scp"), Path("kept"))
    Path("data/train/f.ark").write_bytes(Path("data/train/f.ark").read_bytes()[:cut])
    with pytest.raises(UserError, match=r"feats\.scp: none of 2 .* the first is a: .*unreadable features"):
        formatting.describe_features(Path("data/train/feats.scp"), Path("kept"))


def test_features_that_are_none(place: Path) -> None:
    good, nan = np.zeros((4, 3), "f"), np.full((4, 3), np.nan, "f")
    kaldiio.save_ark("f.ark", {"good": good, "nan": nan}, scp="feats.scp")
    kaldiio.save_ark("w.ark", {"audio": (16000, np.zeros(9, "int16"))}, scp="w.scp")
    kaldiio.save_ark("v.ark", {"vector": np.zeros(3, "f")}, scp="v.scp")
    Path("p.ark").write_bytes(b"a PKLcposix\nsystem\n(S'touch harmed'\ntR.")
    table = read_table("feats.scp") | read_table("w.scp") | read_table("v.scp")
    table |= {"pickle": "p.ark:2", "pipe": "touch harmed; cat f.ark |", "absent": "none.ark:3", "end": "f.ark:9999"}
    write_table("feats.scp", table)
    made, bad, width = formatting.describe_features(Path("feats.scp"), Path("kept"))
    assert (made, width) == ({"feats_shape": {"good": "4,3"}}, 3)
    for key, message in {
        "nan": r"f\.ark:\d+: 12 of its values are not finite; make them again",
        "audio": r"w\.ark:6: holds audio, not a matrix",
        "vector": r"v\.ark:7: holds an array of 1 dimensions, not a matrix",
        "pickle": r"p\.ark:2: a pickle, which could run anything",
        "pipe": r"touch harmed; cat f\.ark \|: a command; write its features into an archive",
        "absent": r"none\.ark:3: no such file",
        "end": r"f\.ark:9999: unreadable features",
    }.items():
        assert re.match(message, bad.pop(key)), key
    assert not bad and not Path("harmed").exists()


def write_speech(name: str, lengths: dict[str, float], text: str = "一二") -> None:
    """A raw data directory of noise, each utterance with another."""
    entries = {}
    for number, (key, seconds) in enumerate(lengths.items()):
        entries[key] = f"{name}-{number}.wav"
        noise = np.random.default_rng([number, *name.encode()]).uniform(-0.1, 0.1, int(16000 * seconds))
        soundfile.write(entries[key], noise, 16000)
    write_set(name, dict.fromkeys(lengths, text), **{"wav.scp": entries})


def test_bad_utterances_of_stage_3(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_speech("train", {"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.5})
    Path("train-1.wav").write_bytes(Path("train-1.wav").read_bytes()[:5000])
    table = read_table("data/train/text")
    write_table("data/train/text", {key: text for key, text in table.items() if key != "d"})
    for _ in range(2):  # what is known from the first run serves the second
        with pytest.raises(
            UserError, match=r"^dump/raw/org/train/bad_utterances: 2 of 4 .* b: train-1\.wav: truncated"
        ):
            formatting.format_set(layout("--max_bad", "1"), "train", 1)
    formatting.format_set(layout("--max_bad", "2"), "train", 1)
    assert list(read_table("dump/raw/org/train/wav.scp")) == list(read_table("dump/raw/org/train/text")) == ["a", "c"]
    assert read_table("dump/raw/org/train/bad_utterances")["d"] == "has no line in data/train/text"
    assert "2 of 4 utterances can't be used, the first is b" in capsys.readouterr().out
    for name, words in (("test", []), ("dev", ["--eval_valid_set", "true"])):
        write_speech(name, {"a": 0.5, "b": 0.5})
        Path(f"{name}-0.wav").unlink()
        with pytest.raises(UserError, match=rf"1 of 2 .* a: {name}-0\.wav: no such file.*; a test set must be whole"):
            formatting.format_set(layout("--max_bad", "9", *words), name, 1)
    formatting.format_set(layout("--max_bad", "9"), "dev", 1)
    Path("train-1.wav").write_bytes(wav_bytes("一二"))
    write_table("data/train/text", table)
    formatting.format_set(layout(), "train", 1)
    assert list(read_table("dump/raw/org/train/wav.scp")) == ["a", "b", "c", "d"]
    assert not Path("dump/raw/org/train/bad_utterances").exists()


def test_no_good_utterance_at_all(place: Path) -> None:
    write_speech("train", {"a": 0.5, "b": 0.5})
    for path in Path().glob("*.wav"):
        path.unlink()
    with pytest.raises(UserError, match=r"2 of 2 .*; there is no other"):
        formatting.format_set(layout("--max_bad", "9"), "train", 1)


def test_fewer_frames_than_characters(place: Path) -> None:
    write_speech("train", {"a": 0.5, "b": 0.2}, text="一" * 30)
    for words in ([], ["--token_type", "word"]):
        plan = layout("--max_bad", "1", "--token_type", "char", *words)
        formatting.format_set(plan, "train", 1)
        formatting.filter_set(plan, "train")
        assert len(read_table("dump/raw/train/text")) == (2 if words else 1)
    with pytest.raises(UserError, match=r"1 of 2 .* b: 0\.2 s: fewer frames than its 30 characters"):
        formatting.filter_set(layout("--token_type", "char"), "train")


@pytest.mark.parametrize("audio_format", ["wav", "flac", "flac.ark"])
def test_ids_with_slashes_and_dots(place: Path, audio_format: str) -> None:
    keys = ["a/b/1", "a%2Fb/1", "/etc/u2", "../x", ".hidden", "..", "a_b_1"]
    (place / "work").mkdir()
    soundfile.write("u.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 800), 8000)
    write_table("wav.scp", dict.fromkeys(keys, "../u.wav"))
    os.chdir("work")
    made, bad = format_wav_scp("../wav.scp", "out", audio_format=audio_format, fs=16000, nj=2, processes=1)
    assert not bad and list(made["utt2num_samples"]) == sorted(keys) == list(made["wav.scp"])
    paths = {Path(entry.split(".ark:")[0]).resolve() for entry in made["wav.scp"].values()}
    assert all(path.is_relative_to(place / "work/out/data") for path in paths)
    assert len(paths) == (2 if "ark" in audio_format else len(keys))
    assert not [path for path in place.iterdir() if path.name not in ("work", "u.wav", "wav.scp")]


def test_recordings_in_two_sets(place: Path) -> None:
    write_speech("train", {"a": 0.5, "b": 0.5})
    write_speech("dev", {"c": 0.5, "d": 0.5})
    write_speech("test", {"e": 0.5, "f": 0.4})
    formatting.check_leaks(layout())
    shutil.copy("train-1.wav", "dev-1.wav")  # the same bytes
    message = r"^data/dev: 1 of 2 recordings are also in data/train, the first is d \(b there\)"
    with pytest.raises(UserError, match=message):
        formatting.check_leaks(layout())
    write_table("data/train_sp/wav.scp", {"sp0.9-b": "sox train-1.wav -t wav - speed 0.9 |"})
    with pytest.raises(UserError, match=r"the first is d \(sp0\.9-b there\)"):
        formatting.check_leaks(layout("--speed_perturb_factors", "0.9"))
    write_speech("dev", {"c": 0.5})
    write_table("data/test/wav.scp", {"e": str(Path("train-0.wav").resolve()), "f": "x.ark:5"})  # the same file
    with pytest.raises(UserError, match=r"^data/test: 1 of 2 .* the first is e \(a there\)"):
        formatting.check_leaks(layout())


def test_full_disk_is_explained() -> None:
    with pytest.raises(UserError, match=r"out/x: no space left on the disk .*; make room"), writing():
        raise OSError(errno.ENOSPC, "No space left on device", "out/x")
    with pytest.raises(OSError, match="Bad file"), writing():
        raise OSError(errno.EBADF, "Bad file descriptor")


def test_what_a_killed_run_goes_on_writing_is_nobodys(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that outlives its run for a moment writes into a folder of its own; a rerun starts without it."""
    Path("u1.wav").write_bytes(wav_bytes("一二"))
    write_table("wav.scp", {"u1": "u1.wav"})
    left = Path("out/data/format.1.new1")
    left.mkdir(parents=True)
    (left / "wav.scp").write_text("u1 nowhere.flac\n")
    made, _ = format_wav_scp("wav.scp", "out", audio_format="flac", fs=16000, nj=1, processes=1)
    assert made["wav.scp"] == {"u1": "out/data/format.1/u1.flac"} and Path(made["wav.scp"]["u1"]).is_file()
    assert [path.name for path in Path("out/data").iterdir()] == ["format.1"]
    ark, _ = format_wav_scp("wav.scp", "ark", audio_format="flac.ark", fs=16000, nj=1, processes=1)
    assert ark["wav.scp"]["u1"].startswith("ark/data/format.1/data_wav.ark:")
    assert len(kaldiio.load_mat(ark["wav.scp"]["u1"])[1]) == 4800


def test_ids_that_are_too_long_for_a_file(place: Path) -> None:
    Path("u.wav").write_bytes(wav_bytes("一二"))
    keys = ["x" * 300, "x" * 299 + "y", "一" * 90]
    write_table("wav.scp", dict.fromkeys(keys, "u.wav"))
    made, bad = format_wav_scp("wav.scp", "out", audio_format="flac", fs=16000, nj=1, processes=1)
    assert sorted(made["wav.scp"]) == sorted(keys) and not bad and len(set(made["wav.scp"].values())) == 3


def test_a_set_without_transcripts_or_speakers_is_named(place: Path) -> None:
    Path("u.wav").write_bytes(wav_bytes("一二"))
    write_set("train", {"u": "一二"}, **{"wav.scp": {"u": "u.wav"}})
    plan = layout("--audio_format", "flac")
    text = Path("data/train/text")
    kept = text.read_bytes()
    text.unlink()
    with pytest.raises(UserError, match=r"data/train/text: no such file; training needs transcripts"):
        formatting.format_set(plan, "train", 1)
    text.write_bytes(kept)
    Path("data/train/utt2spk").write_text("u\n")
    with pytest.raises(UserError, match=r"data/train/utt2spk: u has no one speaker"):
        formatting.format_set(plan, "train", 1)
