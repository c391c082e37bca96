"""Waveforms of a Kaldi wav.scp: plain files, archives (`wav.ark:1234`) and commands (`sox … |`); one reader for all.

Commands are run by a shell, as Kaldi and ESPnet's stage 3 run them, hence only a wav.scp that you trust should hold
any. Those that only change the speed (``sox PATH -t wav - speed F |``, asr.sh's stage 2) are computed here instead.
"""

import contextlib
import io
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import soundfile

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.parallel import cores, each
from espnet_gmot.kaldi.riff import MAGIC, Header, mended, read_header
from espnet_gmot.kaldi.tables import read_table

_SOX = re.compile(r"sox (?P<path>.*) -t wav - speed (?P<factor>[0-9.]+) \|")
_OGG_PAGE = 65307  # bytes, at most
_IN_ARK = re.compile(r"(?P<ark>.*):(?P<offset>[0-9]+)")


@dataclass(frozen=True)
class Utterance:
    """One line of wav.scp.

    Attributes:
        key: utterance id.
        source: path, archive place or command.
        samples: length, or 0 where it cannot be known before reading.
    """

    key: str
    source: str
    samples: int


@dataclass(frozen=True)
class Sound:
    """What was read.

    Attributes:
        samples: (N,) or (N, C) float32 in [-1, 1]; N > 0, finite and not all the same.
        rate: in Hz.
        subtype: libsndfile's name of the encoding, e.g. PCM_16.
        untouched: whether every program reads these samples from the source itself: a plain file with true sizes.
    """

    samples: np.ndarray
    rate: int
    subtype: str
    untouched: bool


def read_wav_scp(path: str | Path) -> dict[str, str]:
    """Read wav.scp: sources by utterance.

    Raises:
        UserError: the table is missing, empty or has duplicates, lacks a source, or wants cutting (``segments``).
    """
    path = Path(path)
    if (path.parent / "segments").is_file():
        raise UserError(f"{path.parent}/segments: utterances must be cut first (asr.sh --stage 3 --stop_stage 3)")
    sources = read_table(path)
    for key, source in sources.items():
        if not source:
            raise UserError(f"{path}: '{key}' is not an `utterance path` line; mend or remove it")
    return sources


def read_utterances(path: str | Path) -> tuple[list[Utterance], dict[str, str]]:
    """Read wav.scp and the header of each plain file in it.

    Returns:
        The utterances in the table's order, and what is wrong with others: reason by utterance.

    Raises:
        UserError: see :func:`read_wav_scp`.
    """
    sources = read_wav_scp(path)
    samples, bad = each(count_samples, sources, cores(), "headers")
    return [Utterance(key, sources[key], count) for key, count in samples.items()], bad


def count_samples(source: str) -> int:
    """Samples of each channel of a plain file, from its header alone; 0 for archives and commands.

    Raises:
        UserError: the file is missing, truncated or no audio.
    """
    if path_of(source) != source:
        return 0
    return _frames(source, check_header(source))


def measure_seconds(source: str) -> float:
    """How long a recording is; a wav's header tells whether it is whole, anything else has to be read.

    Raises:
        UserError: see :func:`count_samples` and :func:`read_sound`.
    """
    path = path_of(source)
    if path is not None and (header := check_header(path)) is not None:
        perturbed = perturbed_source(source)
        return _frames(path, header) / header.rate / (perturbed[1] if perturbed else 1.0)
    sound = read_sound(source)
    return len(sound.samples) / sound.rate


def _frames(path: str, header: Header | None) -> int:
    frames = _info(path) if header is None or header.plain else header.frames
    if frames == 0:
        raise UserError(f"{path}: holds no samples; restore the file")
    return frames


def check_header(path: str) -> Header | None:
    """Compare a file's wav header with its size; None for other formats.

    Raises:
        UserError: no such file, or cut short of what its header announces.
    """
    try:
        with open(path, "rb") as stream:
            return read_header(stream, Path(path).stat().st_size, path)
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}; restore the file") from error


def _info(path: str) -> int:
    try:
        return soundfile.info(path).frames
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UserError(f"{path}: no readable audio ({_what(path, error)}); restore the file") from error


def path_of(source: str) -> str | None:
    """The plain file behind a source, be it played at another speed; None for archives and other commands."""
    if found := perturbed_source(source):
        source = found[0]
    return None if source.endswith("|") or _IN_ARK.fullmatch(source) else source


def file_of(source: str) -> str | None:
    """The file that a source reads, be it an archive; None for commands."""
    found = _IN_ARK.fullmatch(source)
    return found["ark"] if found else path_of(source)


def perturbed_source(entry: str) -> tuple[str, float] | None:
    """Path and speed behind a wav.scp entry of the form ``sox PATH -t wav - speed F |``; None for any other.

    A path in single quotes, as a shell needs them around spaces and its own signs, is what they hold.
    """
    found = _SOX.fullmatch(entry)
    if not found:
        return None
    path = found["path"]
    if path.startswith("'"):
        with contextlib.suppress(ValueError):  # no closing quotation: an apostrophe
            words = shlex.split(path)
            return (words[0], float(found["factor"])) if len(words) == 1 else None
    return None if "|" in path else (path, float(found["factor"]))


def change_speed(wave: np.ndarray, rate: int, factor: float) -> np.ndarray:
    """Play ``wave`` ``factor`` times as fast, pitch and all: (N,) or (N, C) at ``rate`` → about N / factor samples.

    sox's ``speed`` resamples too; soxr is the same resampler.
    """
    import soxr

    return soxr.resample(wave, rate * factor, rate, quality="HQ")


def read_sound(source: str) -> Sound:
    """Read one wav.scp entry.

    Args:
        source: file, ``ark:offset``, ``sox PATH -t wav - speed F |`` (computed, without sox) or another command.

    Raises:
        UserError: missing, unreadable, cut short, empty, silent or not finite; or a command that fails.
    """
    perturbed = perturbed_source(source)
    source = perturbed[0] if perturbed else source
    header: Header | None = None
    stream: str | IO[bytes] = source
    if source.endswith("|"):
        stream, header = _whole(_run(source), source)
    elif found := _IN_ARK.fullmatch(source):
        stream, header = _whole(_entry(found["ark"], int(found["offset"]), source), source)
    elif (header := check_header(source)) is not None and not header.plain:
        stream = io.BytesIO(mended(Path(source).read_bytes(), header))
    _check_ogg(stream, source)
    samples, rate, subtype = _decode(stream, source)
    if perturbed:
        samples = change_speed(samples, rate, perturbed[1])
    untouched = stream is source and perturbed is None and (header is None or header.plain)
    return Sound(samples, rate, subtype, untouched)


def read_audio(source: str, sampling_rate: int) -> np.ndarray:
    """Read one wav.scp entry of one channel at a sampling rate; other rates are resampled, as stage 3 does.

    Returns:
        (N,) float32 samples in [-1, 1].

    Raises:
        UserError: see :func:`read_sound`, or more than one channel.
    """
    import soxr

    sound = read_sound(source)
    if sound.samples.ndim != 1:
        channels = sound.samples.shape[1]
        raise UserError(f"{source}: {channels} channels; mix it down to one (sox IN.wav OUT.wav remix -)")
    if sound.rate == sampling_rate:
        return sound.samples
    return np.clip(soxr.resample(sound.samples, sound.rate, sampling_rate, quality="HQ"), -1.0, 1.0)


def sampling_rate(text: int | str, option: str) -> int:
    """A rate in Hz as ESPnet reads it: ``16k`` or ``16000`` → 16000.

    Raises:
        UserError: not a rate; names the option.
    """
    import humanfriendly

    try:
        rate = humanfriendly.parse_size(str(text))
    except humanfriendly.InvalidSize:
        rate = 0
    if rate <= 0:
        raise UserError(f"{option}: '{text}' is no sampling rate; write 16k or 16000")
    return rate


def _whole(data: bytes, source: str) -> tuple[IO[bytes], Header | None]:
    """Audio that isn't a file of its own, ready for libsndfile, and its header if it is a wav."""
    header = read_header(io.BytesIO(data), len(data), source)
    return io.BytesIO(data if header is None or header.plain else mended(data, header)), header


def _check_ogg(stream: str | IO[bytes], source: str) -> None:
    """libsndfile reads an Ogg file (Vorbis, Opus) that was cut short without a word; but its last page says it is one.

    Raises:
        UserError: the last page isn't whole, or not marked as the stream's end (RFC 3533, section 6).
    """
    with open(stream, "rb") if isinstance(stream, str) else contextlib.nullcontext(stream) as handle:
        if handle.read(4) == b"OggS":
            size = handle.seek(0, io.SEEK_END)
            handle.seek(max(0, size - _OGG_PAGE))
            page = (tail := handle.read())[tail.rfind(b"OggS") :]
            lacing = page[27 : 27 + page[26]] if len(page) > 26 else b""
            if len(page) < 27 or len(page) != 27 + page[26] + sum(lacing) or not page[5] & 4:
                raise UserError(f"{source}: truncated, its last page isn't the end of an Ogg stream; restore it")
        handle.seek(0)


def _decode(stream: str | IO[bytes], source: str) -> tuple[np.ndarray, int, str]:
    try:
        with soundfile.SoundFile(stream) as audio:
            promised, rate, subtype, samples = (
                audio.frames,
                audio.samplerate,
                audio.subtype,
                audio.read(dtype="float32"),
            )
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise UserError(f"{source}: no readable audio ({_what(stream, error)}); restore it") from error
    if len(samples) < promised < 1 << 62:
        raise UserError(f"{source}: truncated, {len(samples)} of {promised} samples; restore it")
    if len(samples) == 0:
        raise UserError(f"{source}: holds no samples; restore it or remove its line")
    if not np.isfinite(samples).all():
        raise UserError(f"{source}: {int((~np.isfinite(samples)).sum())} samples are not finite; restore it")
    if samples.min() == samples.max():
        raise UserError(f"{source}: silent, all samples are {samples.flat[0]:g}; restore it or remove its line")
    return samples, rate, subtype


def _entry(ark: str, offset: int, source: str) -> bytes:
    """The bytes of one audio entry of an archive, as Kaldi (a wav) or kaldiio (AUDIO, length, any format) wrote it."""
    try:
        with open(ark, "rb") as stream:
            stream.seek(offset)
            magic = stream.read(5)
            if magic == b"AUDIO":
                length = int.from_bytes(stream.read(stream.read(1)[0]), "little")
            elif magic[:4] in MAGIC:
                length = _rest(stream, offset)
                if header := read_header(stream, length, source):
                    length = header.start + header.length
                    if header.streamed:
                        raise UserError(f"{source}: its header lacks the length, where does it end? save it anew")
                stream.seek(offset)
            elif magic[:4] == b"fLaC":
                length = _rest(stream, offset)
            else:
                kind = "a matrix" if magic[:2] == b"\0B" else "no entry"
                raise UserError(f"{source}: holds {kind}, not audio; give a wav.scp with audio")
            place = stream.tell()
            there = _rest(stream, place)
            data = stream.read(length) if length <= there else b""
    except OSError as error:
        raise UserError(f"{source}: {(error.strerror or str(error)).lower()}; restore the archive") from error
    if len(data) < length:
        raise UserError(f"{source}: truncated, {there} of {length} bytes; restore the archive")
    return data


def _rest(stream: IO[bytes], offset: int) -> int:
    """Bytes from ``offset`` to the end; the stream stands at ``offset`` afterwards."""
    end = stream.seek(0, io.SEEK_END)
    stream.seek(offset)
    return end - offset


def _run(pipe: str) -> bytes:
    command = pipe.rstrip("| ")
    # what ESPnet's stage 3 does with the same line; docs/security.md says who may write one
    done = subprocess.run(  # noqa: S602
        command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        fix = "; install the program or name a file instead" if done.returncode == 127 else "; mend the command"
        raise UserError(f"{command!r} failed with status {done.returncode}: {reason[0]}{fix}")
    return done.stdout


def _what(stream: str | IO[bytes], error: Exception) -> str:
    """Why libsndfile refuses: what the bytes are, where they say so."""
    head = b""
    if not isinstance(stream, str):
        stream.seek(0)
        head = stream.read(16)
    elif Path(stream).is_file():
        with open(stream, "rb") as handle:
            head = handle.read(16)
    if not head:
        return "empty"
    for magic, kind in ((b"\xff\xfb", "MP3"), (b"ID3", "MP3"), (b"<", "a web page or XML"), (b"version https", "LFS")):
        if head.startswith(magic):
            return f"it is {kind}" if kind != "LFS" else "a Git-LFS pointer: git lfs pull"
    if head[4:8] == b"ftyp":
        return "it is MP4 or M4A"
    return (" ".join(str(getattr(error, "error_string", error)).split()) or type(error).__name__)[:200]
