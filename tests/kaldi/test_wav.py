"""Audio: what the one reader accepts, what it names, and that every command reads with it."""

import io
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from espnet_gmot.corpora.aishell import find_bad
from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.tables import write_table
from espnet_gmot.kaldi.wav import (
    change_speed,
    count_samples,
    read_audio,
    read_sound,
    read_utterances,
    read_wav_scp,
    sampling_rate,
)
from espnet_gmot.recipe.audio import format_wav_scp

RATE = 16000
WAVE = (np.random.default_rng(0).integers(-8000, 8000, 1600) / 32768).astype(np.float32)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wav(wave: np.ndarray = WAVE, rate: int = RATE, **options: str) -> bytes:
    """A file's bytes; by default 16 bit RIFF with a header of 44 bytes."""
    stream = io.BytesIO()
    soundfile.write(stream, wave, rate, **({"format": "WAV", "subtype": "PCM_16"} | options))
    return stream.getvalue()


def sized(riff: int, data: int, tail: bytes = b"") -> bytes:
    """WAVE with other sizes in its header."""
    whole = wav()
    assert whole[36:40] == b"data"
    return whole[:4] + struct.pack("<I", riff) + whole[8:40] + struct.pack("<I", data) + whole[44:] + tail


def rf64(magic: bytes = b"RF64", length: int | None = None) -> bytes:
    """WAVE with 64-bit sizes; ``length`` replaces that of the samples."""
    whole = wav(format="RF64")
    size = whole[28:36] if length is None else struct.pack("<Q", length)
    return magic + whole[4:28] + size + whole[36:]


INTACT = {
    "riff": wav(),
    "extensible": wav(format="WAVEX"),
    "24 bit": wav(subtype="PCM_24"),
    "float": wav(subtype="FLOAT"),
    "list after the samples": sized(36 + 3200 + 12, 3200, b"LIST\x04\x00\x00\x00INFO"),
    "ffmpeg to a pipe": sized(0xFFFFFFFF, 0xFFFFFFFF),
    "sox to a pipe": sized(0x7FFFF024, 0x7FFFF000),
    "int max": sized(0x7FFFFFFF, 0x7FFFFFFF - 36),
    "zeros": sized(0, 0),
    "zero samples": sized(36, 0),
    "rf64": rf64(),
    "bw64": rf64(b"BW64"),
    "rf64 never filled in": rf64(length=(1 << 64) - 1),
    "flac": wav(format="FLAC"),
}
BAD = {
    "cut": (wav()[:1200], r"truncated, 1156 of 3200 bytes of samples"),
    "cut by a byte": (wav()[:-1], r"truncated, 3199 of 3200"),
    "cut extensible": (wav(format="WAVEX")[:1200], r"truncated, \d+ of 3200"),
    "cut rf64": (rf64()[:1200], r"truncated, \d+ of 3200"),
    "cut in the header": (wav()[:40], r"truncated before its samples \(40 bytes\)"),
    "no samples": (wav(WAVE[:0]), r"holds no samples"),
    "empty": (b"", r"no readable audio \(empty\)"),
    "text": (b"no audio at all", r"no readable audio"),
    "page": (b"<html>not found</html>", r"no readable audio \(it is a web page"),
    "mp4": (b"\0\0\0\x20ftypM4A xxxxxxxxxxxx", r"no readable audio \(it is MP4 or M4A\)"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", r"Git-LFS pointer: git lfs pull"),
    "cut flac": (wav(format="FLAC")[:1500], r"x\.wav.*: (truncated|no readable audio)"),
    "silent": (wav(WAVE * 0), r"silent, all samples are 0"),
    "nan": (wav(np.where(np.arange(1600) < 3, np.nan, WAVE), subtype="FLOAT"), r"3 samples are not finite"),
}
FROM_HEADER = [name for name in BAD if name not in ("silent", "nan", "cut flac")]


def plain(data: bytes) -> str:
    """A file."""
    Path("x.wav").write_bytes(data)
    return "x.wav"


def command(data: bytes) -> str:
    """A command that prints it."""
    Path("x.wav").write_bytes(data)
    return "cat x.wav |"


def archive(data: bytes) -> str:
    """An entry of an archive, as kaldiio writes audio with soundfile, with another behind it."""
    entry = b"AUDIO\x04" + struct.pack("<I", len(data)) + data
    Path("x.wav.ark").write_bytes(b"key " + entry + b"other AUDIO\x01\x01x")
    return "x.wav.ark:4"


@pytest.mark.parametrize("form", [plain, command, archive])
@pytest.mark.parametrize("kind", INTACT)
def test_intact_audio_is_read_to_its_end(place: Path, kind: str, form: Callable[[bytes], str]) -> None:
    sound = read_sound(form(INTACT[kind]))
    np.testing.assert_allclose(sound.samples, WAVE, atol=1 / 32768)
    assert (sound.rate, sound.samples.dtype) == (RATE, np.float32)
    direct = ("riff", "extensible", "24 bit", "float", "list after the samples", "flac")
    assert sound.untouched is (form is plain and kind in direct)
    if form is plain:
        assert count_samples("x.wav") == 1600


@pytest.mark.parametrize("form", [plain, command, archive])
@pytest.mark.parametrize("kind", BAD)
def test_bad_audio_is_named(place: Path, kind: str, form: Callable[[bytes], str]) -> None:
    data, message = BAD[kind]
    source = form(data)
    with pytest.raises(UserError, match=message) as error:
        read_sound(source)
    assert source in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", FROM_HEADER)
def test_every_command_names_bad_audio(place: Path, kind: str) -> None:
    data, message = BAD[kind]
    write_table("wav.scp", {"u1": plain(data)})
    by_prepare_data = find_bad({"u1": Path("x.wav")}, "train")
    _, by_dump_frontend = read_utterances("wav.scp")
    _, by_stage_3 = format_wav_scp("wav.scp", "out", audio_format="flac.ark", fs=RATE, nj=1, processes=1)
    for bad in (by_prepare_data, by_dump_frontend, by_stage_3):
        assert list(bad) == ["u1"] and re.search(message, bad["u1"])


@pytest.mark.parametrize("audio_format", ["wav", "wav.ark"])
@pytest.mark.parametrize("kind", INTACT)
def test_stage_3_formats_intact_audio(place: Path, kind: str, audio_format: str) -> None:
    write_table("wav.scp", {"u1": plain(INTACT[kind])})
    made, bad = format_wav_scp("wav.scp", "out", audio_format=audio_format, fs=RATE, nj=1, processes=1)
    assert (made["utt2num_samples"], bad) == ({"u1": "1600"}, {})
    entry = made["wav.scp"]["u1"]
    stored = soundfile.read(entry)[0] if audio_format == "wav" else kaldiio.load_mat(entry)[1]  # as ESPnet does
    np.testing.assert_allclose(stored, WAVE, atol=1 / 32768)


def test_kaldis_own_archives(place: Path) -> None:
    kaldiio.save_ark("x.ark", {"a": (RATE, (WAVE * 32768).astype(np.int16))}, scp="a.scp")
    kaldiio.save_ark("x.ark", {"b": (RATE, (WAVE[:800] * 32768).astype(np.int16))}, scp="b.scp", append=True)
    flac = {"format": "flac", "subtype": "PCM_16"}
    kaldiio.save_ark("f.ark", {"c": (WAVE, RATE)}, scp="c.scp", write_function="soundfile", write_kwargs=flac)
    for name, expected in (("a", WAVE), ("b", WAVE[:800]), ("c", WAVE)):
        (source,) = read_wav_scp(f"{name}.scp").values()
        np.testing.assert_allclose(read_sound(source).samples, expected, atol=1 / 32768)
    Path("x.ark").write_bytes(Path("x.ark").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"x\.ark:\d+: truncated, 1500 of 1600"):
        read_sound(read_wav_scp("b.scp")["b"])
    kaldiio.save_ark("m.ark", {"a": np.zeros((2, 3), "f")}, scp="m.scp")
    with pytest.raises(UserError, match=r"m\.ark:2: holds a matrix, not audio"):
        read_sound("m.ark:2")
    with pytest.raises(UserError, match=r"none\.ark:2: no such file"):
        read_sound("none.ark:2")
    Path("p.ark").write_bytes(b"a PKL" + b"cposix\nsystem\n")
    with pytest.raises(UserError, match=r"p\.ark:2: holds no entry, not audio"):
        read_sound("p.ark:2")


@pytest.mark.parametrize(
    "pipe",
    [
        "cat a.wav |",
        "cat a.wav|",
        "LC_ALL=C cat a.wav |",
        "( cat a.wav ) |",
        "{ cat a.wav; } |",
        "cat a.wav | cat |",
        'cat "it\'s.wav" |',
        "cat $(echo a.wav) |",
        "cat < a.wav |",
    ],
)
def test_commands_run_in_a_shell(place: Path, pipe: str) -> None:
    for name in ("a.wav", "it's.wav"):
        Path(name).write_bytes(wav())
    assert np.array_equal(read_sound(pipe).samples, WAVE)


@pytest.mark.parametrize(
    ("pipe", "message"),
    [
        ("nosuchprogram a.wav |", r"'nosuchprogram a\.wav' failed with status 127: .*install the program"),
        ("cat b.wav |", r"'cat b\.wav' failed with status 1: .*No such file.*; mend the command"),
        ("cat it's.wav |", r"failed with status 2"),
        ("head -c 1000 a.wav |", r"head -c 1000 a\.wav \|: truncated, 956 of 3200"),
        ("true |", r"true \|: no readable audio \(empty\)"),
    ],
)
def test_commands_that_fail(place: Path, pipe: str, message: str) -> None:
    Path("a.wav").write_bytes(wav())
    with pytest.raises(UserError, match=message):
        read_sound(pipe)


def test_speed_is_computed_without_sox(place: Path) -> None:
    time = np.arange(RATE) / RATE
    for name in ("a.wav", "it's a.wav"):
        Path(name).write_bytes(wav(0.5 * np.sin(2 * np.pi * 500 * time)))
        slow = read_sound(f"sox {name} -t wav - speed 0.8 |")
        assert (len(slow.samples), slow.untouched) == (RATE / 0.8, False)
        assert np.argmax(np.abs(np.fft.rfft(slow.samples))) / len(slow.samples) * RATE == pytest.approx(400, abs=1)
    Path("a.wav").write_bytes(wav()[:1000])
    with pytest.raises(UserError, match=r"a\.wav: truncated"):
        read_sound("sox a.wav -t wav - speed 0.8 |")
    assert len(change_speed(WAVE, RATE, 2.0)) == 800


@pytest.mark.parametrize("program", ["sox", "ffmpeg"])
def test_what_programs_write_into_a_pipe(place: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    Path("a.wav").write_bytes(wav())
    words = {"sox": "sox -t wav - -t wav -", "ffmpeg": "ffmpeg -loglevel error -i - -f wav -"}[program]
    assert np.array_equal(read_sound(f"cat a.wav | {words} | cat |").samples, WAVE)


def test_other_rates_are_resampled_and_channels_named(place: Path) -> None:
    time = np.arange(44100) / 44100
    Path("cd.WAV").write_bytes(wav(0.5 * np.sin(2 * np.pi * 500 * time), 44100))
    audio = read_audio("cd.WAV", RATE)
    assert audio.shape == (RATE,)
    assert np.argmax(np.abs(np.fft.rfft(audio))) == 500
    Path("stereo.wav").write_bytes(wav(np.stack([WAVE, WAVE[::-1]], 1)))
    with pytest.raises(UserError, match=r"^stereo\.wav: 2 channels; mix it down to one \(sox IN"):
        read_audio("stereo.wav", RATE)


@pytest.mark.parametrize("rate", ["0", "fast", "-8k"])
def test_bad_rates(rate: str) -> None:
    assert (sampling_rate("16k", "--fs"), sampling_rate("22050", "--fs")) == (16000, 22050)
    with pytest.raises(UserError, match=f"--fs: '{rate}' is no sampling rate"):
        sampling_rate(rate, "--fs")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_that_was_cut_is_named(place: Path, subtype: str) -> None:
    """libsndfile reads what there is of it."""
    path = place / "a.ogg"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(96000), 48000, format="OGG", subtype=subtype)
    whole = path.read_bytes()
    assert len(read_sound(str(path)).samples) == 96000
    for cut in (len(whole) // 2, len(whole) - 1, whole.rfind(b"OggS")):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"a\.ogg: truncated|a\.ogg: no readable audio"):
            read_sound(str(path))
        with pytest.raises(UserError, match=r"truncated|no readable audio"):
            read_sound(f"cat {path} |")
