"""Waveforms of a Kaldi wav.scp: plain files, archives (`feats.ark:1234`) and commands (`sox … |`)."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from espnet_gmot.errors import UserError

# What RIFF headers say when the writer could not go back and fill in the size.
_STREAMED = (0, 0x7FFFFFFF, 0xFFFFFFFF)


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

    @property
    def is_file(self) -> bool:
        """Whether the source is a plain audio file."""
        return _is_file(self.source)


def read_wav_scp(path: Path) -> list[Utterance]:
    """Read wav.scp and the header of each plain file in it.

    Raises:
        UserError: the table is missing, empty or has duplicates, wants cutting (`segments`), or names files that are
            missing, truncated or no audio.
    """
    if (path.parent / "segments").is_file():
        raise UserError(f"{path.parent}/segments: utterances must be cut first (asr.sh --stage 3 --stop_stage 3)")
    if not path.is_file():
        raise UserError(f"--wav_scp {path}: no such file; give a Kaldi wav.scp (`utterance path` lines)")
    sources: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        key, _, source = line.strip().replace("\t", " ").partition(" ")
        if not source.strip():
            raise UserError(f"{path}:{number}: '{line}' is not an `utterance path` line; mend or remove it")
        if key in sources:
            raise UserError(f"{path}:{number}: utterance {key} occurs twice; keep one line for each utterance")
        sources[key] = source.strip()
    if not sources:
        raise UserError(f"--wav_scp {path}: no utterances; each line must read `utterance path`")
    absent = [key for key, source in sources.items() if _is_file(source) and not Path(source).is_file()]
    if absent:
        raise UserError(
            f"{path}: {len(absent)} of {len(sources)} audio files are missing, the first is "
            f"{sources[absent[0]]} ({absent[0]}); restore them or remove their lines"
        )
    return [Utterance(key, source, _samples(source)) for key, source in sources.items()]


def read_audio(utterance: Utterance, sampling_rate: int) -> np.ndarray:
    """Read one utterance.

    Returns:
        (N,) float32 samples in [-1, 1].

    Raises:
        UserError: it is unreadable or empty, has more than one channel or another sampling rate.
    """
    where = f"{utterance.source} ({utterance.key})"
    if utterance.is_file:
        try:
            audio, rate = soundfile.read(utterance.source, dtype="float32")
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise UserError(f"{where}: no readable audio ({_reason(error)}); restore the file") from error
    else:
        rate, audio = _read_by_kaldiio(utterance, where)
    if audio.ndim != 1:
        raise UserError(f"{where}: {min(audio.shape)} channels; mix it down to one")
    if rate != sampling_rate:
        raise UserError(f"{where}: {rate} Hz, but the model takes {sampling_rate} Hz; resample the data (--fs)")
    if not len(audio):
        raise UserError(f"{where}: no samples; restore the audio or remove its line")
    return audio


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


def _is_file(source: str) -> bool:
    return not source.endswith("|") and not source.rpartition(":")[2].isdigit()


def _samples(source: str) -> int:
    """The length of a plain audio file, whose header must agree with its size; 0 for the rest."""
    if not _is_file(source):
        return 0
    try:
        info = soundfile.info(source)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UserError(f"{source}: no readable audio ({_reason(error)}); restore the file") from error
    with open(source, "rb") as handle:  # libsndfile reads a truncated wav without a word
        head = handle.read(8)
    promised, size = int.from_bytes(head[4:8], "little"), Path(source).stat().st_size
    if head[:4] == b"RIFF" and promised not in _STREAMED and promised + 8 > size + 1:  # 1: a missing pad byte
        raise UserError(f"{source}: truncated, {size} of {promised + 8} bytes; restore the file")
    return info.frames


def _read_by_kaldiio(utterance: Utterance, where: str) -> tuple[int, np.ndarray]:
    import kaldiio

    try:
        loaded = kaldiio.load_mat(utterance.source)
    except Exception as error:  # a broken archive or command ends in any of a dozen types
        raise UserError(f"{where}: no readable audio ({_reason(error)}); restore it") from error
    if not isinstance(loaded, tuple):
        raise UserError(f"{where}: holds a matrix, not audio; give a wav.scp with audio")
    first, second = loaded
    rate, audio = (second, first) if isinstance(first, np.ndarray) else (first, second)
    if np.issubdtype(audio.dtype, np.integer):
        audio = audio / np.float32(-float(np.iinfo(audio.dtype).min))
    return int(rate), audio.astype(np.float32)


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def wav_frames(path: str | Path) -> int:
    """Number of sample frames of a wav file, from its headers alone.

    Raises:
        UserError: not a RIFF/WAVE file, no samples, or fewer bytes than the header announces (truncated).
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        if (head := stream.read(12))[:4] != b"RIFF" or head[8:] != b"WAVE":
            raise UserError(f"{path}: not a wav file ({size} bytes); fetch it again")
        block = 0
        while len(head := stream.read(8)) == 8:
            name, length = head[:4], struct.unpack("<I", head[4:])[0]
            if name == b"fmt ":
                block = struct.unpack("<H", stream.read(length)[12:14])[0]
            elif name == b"data":
                there = size - stream.tell()
                if there < length:
                    raise UserError(
                        f"{path}: truncated, {there} of {length} bytes of samples are there; fetch it again"
                    )
                if block == 0 or length < block:
                    raise UserError(f"{path}: holds no samples; fetch it again")
                return length // block
            else:
                stream.seek(length + length % 2, 1)
    raise UserError(f"{path}: truncated before its samples ({size} bytes); fetch it again")
