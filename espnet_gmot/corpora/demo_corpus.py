"""``python3 -m espnet_gmot demo-corpus``: a small synthetic Mandarin corpus in AISHELL-1's distribution form.

``DIR/data_aishell.tgz`` holds what OpenSLR resource 33 holds: ``data_aishell/transcript/aishell_transcript_v0.8.txt``
and one inner ``data_aishell/wav/S*.tar.gz`` a speaker with ``{train,dev,test}/S*/BAC009S*W*.wav`` (16 kHz, mono,
16 bit). ``DIR/domain_text.txt`` holds further sentences of the same domain for pretraining a language model; none of
them occurs in dev or test. ``DIR/times.ctm`` tells when which character is spoken. The same options give the same
bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import tarfile
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from espnet_gmot.corpora.demo_text import distinct_sentences
from espnet_gmot.corpora.demo_voice import SAMPLE_RATE, Synthesiser
from espnet_gmot.errors import UserError, check_least
from espnet_gmot.kaldi.ctm import Timed, format_ctm

#: Raise it when the same options would give another corpus than before.
VERSION = 1

NOTICE = (
    "Synthetic speech: every sentence is drawn from a small grammar and spoken by the espeak-ng synthesiser (cmn). "
    "Error rates on it show that the recipe works; they say nothing about real Mandarin."
)

#: For each split its speakers: AISHELL-1's speaker number, espeak-ng's variant, pitch (0 to 99), words a minute.
SPEAKERS: dict[str, tuple[tuple[int, str, int, int], ...]] = {
    "train": (
        (2, "m1", 45, 230),
        (3, "m3", 55, 245),
        (4, "m7", 40, 220),
        (5, "f1", 50, 240),
        (6, "f2", 45, 225),
        (7, "f4", 55, 235),
    ),
    "dev": ((724, "m4", 50, 235), (725, "belinda", 50, 230)),
    "test": ((764, "m8", 50, 230), (765, "f5", 50, 235)),
}
_PITCH_SPREAD, _RATE_SPREAD = 8, 15  # each utterance of a speaker differs a little
_NOISE = 0.003  # standard deviation of the white noise, of a full scale of 1
_MARGIN = 0.1  # seconds of near-silence kept before and after the speech


@dataclass(frozen=True)
class DemoOptions:
    """Sizes of the corpus: utterances of each split, sentences of the domain's text, and the seed of all drawing."""

    train: int = 600
    dev: int = 200
    test: int = 200
    domain: int = 6000
    seed: int = 1

    def __post_init__(self) -> None:
        check_least(self, 1, "train", "dev", "test")
        check_least(self, 0, "domain", "seed")


@dataclass(frozen=True)
class Utterance:
    """One line of the transcript: AISHELL's id, the split, the speaker's number and the sentence."""

    name: str
    split: str
    speaker: int
    text: str


def plan_corpus(options: DemoOptions) -> tuple[list[Utterance], list[str]]:
    """Draw the sentences and deal them out to the speakers.

    Returns:
        The utterances, and the sentences of the domain's text (none of them in dev or test).

    Raises:
        UserError: more sentences are wanted than the grammar yields.
    """
    rng = random.Random(options.seed)
    try:
        spoken = distinct_sentences(options.train + options.dev + options.test, rng)
        heldout = frozenset(spoken[options.train :])
        domain = distinct_sentences(options.domain, rng, exclude=heldout)
    except ValueError as error:
        raise UserError(f"--train, --dev, --test, --domain: {error}") from error
    utterances = []
    start = 0
    for split, speakers in SPEAKERS.items():
        texts = spoken[start : start + getattr(options, split)]
        start += len(texts)
        for index, text in enumerate(texts):
            number = speakers[index % len(speakers)][0]
            name = f"BAC009S{number:04d}W{121 + index // len(speakers):04d}"
            utterances.append(Utterance(name, split, number, text))
    check_disjoint(utterances, domain)
    return utterances, domain


def check_disjoint(utterances: list[Utterance], domain: list[str]) -> None:
    """Make sure that no sentence of dev or test occurs in another split or in the domain's text.

    Raises:
        AssertionError: one does; a result on such a corpus would be worthless.
    """
    texts = {split: {u.text for u in utterances if u.split == split} for split in SPEAKERS}
    seen = texts["train"] | set(domain)
    for left, right in ((texts["dev"], seen), (texts["test"], seen), (texts["dev"], texts["test"])):
        if left & right:
            raise AssertionError(f"held-out sentence seen in training: {min(left & right)}")


def render(voice: Synthesiser, text: str, pitch: int, rate: int, rng: np.random.Generator) -> tuple[bytes, list[Timed]]:
    """Speak ``text`` with light noise and ``_MARGIN`` around it.

    Returns:
        A wav file's bytes (16 kHz, mono, 16 bit), and when each character is spoken in it.
    """
    samples, times = voice.speak_timed(text, rate=rate, pitch=pitch)
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    times = times - loud[0] / SAMPLE_RATE + _MARGIN
    samples = np.pad(samples[loud[0] : loud[-1] + 1], int(_MARGIN * SAMPLE_RATE))
    samples = 0.5 * samples / np.abs(samples).max() + _NOISE * rng.standard_normal(len(samples))
    times = times.clip(0, len(samples) / SAMPLE_RATE).tolist()
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sink:
        sink.setnchannels(1)
        sink.setsampwidth(2)
        sink.setframerate(SAMPLE_RATE)
        sink.writeframes((samples * 32767).astype("<i2").tobytes())
    spans = zip(text, pairwise(times), strict=True)
    return stream.getvalue(), [Timed(token, start, end - start) for token, (start, end) in spans]


def _member(archive: tarfile.TarFile, name: str, content: bytes | None) -> None:
    """Add a file (or, without content, a folder) with owner and time that are the same everywhere."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    if content is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(info)
    else:
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))


@contextmanager
def _tgz(path: Path, level: int) -> Iterator[tarfile.TarFile]:
    """A gzipped tar file at ``path``: the same members give the same bytes, and it appears only once complete."""
    partial = path.with_name(path.name + ".partial")
    with (
        open(partial, "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=level, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        yield archive
    os.replace(partial, path)


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _times(archive: Path) -> Path:
    return archive.with_name(archive.name.removesuffix(".tar.gz") + ".ctm")


def speak_speaker(path: Path, utterances: list[Utterance], speaker: tuple[int, str, int, int], seed: int) -> float:
    """Write one speaker's archive, and its times beside it; return the seconds of speech in it.

    Args:
        path: the archive, ``….tar.gz``; the times go into ``….ctm``.
        utterances: all of this speaker.
        speaker: as in :data:`SPEAKERS`.
        seed: of the noise, and of the spread of pitch and rate.
    """
    number, variant, pitch, rate = speaker
    rng = np.random.default_rng([seed, number])
    seconds, times = 0.0, ""
    with Synthesiser(variant) as voice, _tgz(path, level=1) as archive:
        for utterance in utterances:
            wav, spoken = render(
                voice,
                utterance.text,
                pitch + int(rng.integers(-_PITCH_SPREAD, _PITCH_SPREAD + 1)),
                rate + int(rng.integers(-_RATE_SPREAD, _RATE_SPREAD + 1)),
                rng,
            )
            seconds += (len(wav) - 44) / (2 * SAMPLE_RATE)
            _member(archive, f"{utterance.split}/S{number:04d}/{utterance.name}.wav", wav)
            times += format_ctm(utterance.name, spoken)
        _write_text(_times(path), times)  # first: an archive that is there has its times
    return seconds


def build_corpus(out: Path, options: DemoOptions) -> bool:
    """Build the corpus in ``out``, or reuse what an earlier call with the same options left there.

    Returns:
        Whether anything was synthesised. An interrupted call is continued, speaker by speaker.

    Raises:
        UserError: ``espeakng-loader`` is missing, or ``out`` cannot be written.
    """
    from tqdm import tqdm

    wanted = {"version": VERSION, **asdict(options)}
    record = out / "demo_corpus.json"
    finished = json.loads(record.read_text()) if record.is_file() else {}
    if finished.get("options") == wanted and all((out / name).is_file() for name in ("data_aishell.tgz", "times.ctm")):
        return False
    utterances, domain = plan_corpus(options)
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:12]
    parts = out / f"speakers.{digest}"
    try:
        parts.mkdir(parents=True, exist_ok=True)
        for split, speakers in SPEAKERS.items():
            for speaker in tqdm(speakers, desc=f"demo-corpus: speaking {split}", unit="speaker"):
                part = parts / f"S{speaker[0]:04d}.tar.gz"
                own = [u for u in utterances if u.speaker == speaker[0]]
                if own and not (part.is_file() and _times(part).is_file()):
                    speak_speaker(part, own, speaker, options.seed)
        _pack(out, utterances, parts)
        times = (part.read_text(encoding="utf-8") for part in sorted(parts.glob("S*.ctm")))
        _write_text(out / "times.ctm", "".join(times))
        _write_text(out / "domain_text.txt", "".join(f"{text}\n" for text in domain))
        _write_text(out / "README.txt", _readme(utterances, domain))
        _write_text(record, json.dumps({"synthetic": True, "options": wanted}, indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"--out {out}: {error.strerror or error}; choose a folder with space that you may write"
        ) from error
    for part in parts.iterdir():
        part.unlink()
    parts.rmdir()
    return True


def _pack(out: Path, utterances: list[Utterance], parts: Path) -> None:
    """Put transcript and speakers' archives into ``out/data_aishell.tgz``."""
    transcript = "".join(f"{u.name} {u.text}\n" for u in sorted(utterances, key=lambda u: u.name))
    with _tgz(out / "data_aishell.tgz", level=0) as archive:  # the speakers' archives are compressed already
        for folder in ("data_aishell", "data_aishell/transcript", "data_aishell/wav"):
            _member(archive, folder, None)
        _member(archive, "data_aishell/transcript/aishell_transcript_v0.8.txt", transcript.encode())
        for part in sorted(parts.glob("S*.tar.gz")):
            _member(archive, f"data_aishell/wav/{part.name}", part.read_bytes())


def _readme(utterances: list[Utterance], domain: list[str]) -> str:
    lines = ["SYNTHETIC MANDARIN DEMO CORPUS", "", NOTICE, ""]
    for split, speakers in SPEAKERS.items():
        own = [u for u in utterances if u.split == split]
        names = ", ".join(f"S{number:04d} = cmn+{variant}" for number, variant, _, _ in speakers)
        lines.append(f"{split}: {len(own)} utterances, speakers {names}")
    lines.append(f"domain_text.txt: {len(domain)} sentences, none of them in dev or test")
    lines.append("times.ctm: when the synthesiser speaks which character, in seconds")
    return "\n".join(lines) + "\n"


def get_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot demo-corpus",
        description="Synthesise a small Mandarin corpus in AISHELL-1's layout and distribution form. " + NOTICE,
    )
    defaults = DemoOptions()
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for data_aishell.tgz, domain_text.txt and times.ctm"
    )
    for split in ("train", "dev", "test"):
        parser.add_argument(f"--{split}", type=int, default=getattr(defaults, split), help=f"utterances of {split}")
    parser.add_argument("--domain", type=int, default=defaults.domain, help="sentences of domain_text.txt")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="another seed draws another corpus")
    for action in parser._actions:
        if action.type is int:
            action.help = f"{action.help} (default %(default)s)"
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    args = get_parser().parse_args(argv)
    options = DemoOptions(train=args.train, dev=args.dev, test=args.test, domain=args.domain, seed=args.seed)
    made = build_corpus(args.out, options)
    print((args.out / "README.txt").read_text(encoding="utf-8"), end="")
    print(f"demo-corpus: {'made' if made else 'reused'} {args.out / 'data_aishell.tgz'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
