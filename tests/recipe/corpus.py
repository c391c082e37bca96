"""A tiny corpus in AISHELL-1's form, made of tones: every character is a pitch."""

import io
import tarfile
import wave
from pathlib import Path

import numpy as np

ALPHABET = "一二三四五六"
RATE = 16000
TRANSCRIPT = "data_aishell/transcript/aishell_transcript_v0.8.txt"


def wav_bytes(text: str, *, rate: int = RATE, seconds: float = 0.15) -> bytes:
    """A wav file that plays one tone a character."""
    time = np.arange(int(rate * seconds)) / rate
    tones = [np.sin(2 * np.pi * (300 + 400 * ALPHABET.index(character)) * time) for character in text]
    samples = (np.concatenate(tones) * 8000).astype("<i2")
    stream = io.BytesIO()
    with wave.open(stream, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(rate)
        output.writeframes(samples.tobytes())
    return stream.getvalue()


def utterances(counts: dict[str, int]) -> dict[str, tuple[str, str, str]]:
    """Split, speaker and text by utterance: ``counts`` utterances of each of two speakers of each split."""
    rng = np.random.default_rng(0)
    made = {}
    for number, (split, count) in enumerate(counts.items()):
        for speaker in (f"S{number}1", f"S{number}2"):
            for index in range(count):
                text = "".join(rng.choice(list(ALPHABET), size=rng.integers(3, 6)))
                made[f"BAC009{speaker}W{index:04d}"] = (split, speaker, text)
    return made


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def tgz(files: dict[str, bytes]) -> bytes:
    """A gzipped tar of these files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in files.items():
            add(archive, name, data)
    return stream.getvalue()


def corpus_files(counts: dict[str, int]) -> dict[str, bytes]:
    """Members of data_aishell.tgz: transcripts with spaces inside, as AISHELL has them, and one archive a speaker."""
    made = utterances(counts)
    lines = [f"{key} {' '.join((text[:2], text[2:]))}\n" for key, (_, _, text) in made.items()]
    files = {TRANSCRIPT: "".join(lines).encode()}
    for speaker in sorted({speaker for _, speaker, _ in made.values()}):
        inner = {
            f"{split}/{speaker}/{key}.wav": wav_bytes(text)
            for key, (split, owner, text) in made.items()
            if owner == speaker
        }
        files[f"data_aishell/wav/{speaker}.tar.gz"] = tgz(inner)
    return files


def write_corpus(folder: Path, counts: dict[str, int]) -> Path:
    """Write data_aishell.tgz into ``folder``."""
    path = folder / "data_aishell.tgz"
    path.write_bytes(tgz(corpus_files(counts)))
    return path
