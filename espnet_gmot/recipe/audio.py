"""Stage 3 for ``feats_type raw``: every wav.scp entry becomes an audio file or an archive entry of one format."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import as_completed
from itertools import count
from pathlib import Path

import numpy as np
from tqdm import tqdm

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.kaldi.bad import LIST
from espnet_gmot.kaldi.parallel import workers
from espnet_gmot.kaldi.tables import read_table, slices, split_table
from espnet_gmot.kaldi.wav import path_of, read_sound
from espnet_gmot.marks import digest_of, is_complete, set_complete

_LONGEST = 200  # bytes; file systems end at 255, with the suffix
VERSION = "2"
"""Part of the fingerprint; raise it when the output changes."""


def format_wav_scp(
    source: str | Path, target: str | Path, *, audio_format: str, fs: int, nj: int, processes: int
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Format all entries of ``source``; finished parts are kept.

    Args:
        source: wav.scp whose entries are files or pipes.
        target: data directory; the audio goes to ``target/data/format.N``.
        audio_format: wav, flac, wav.ark or flac.ark.
        fs: sampling rate of the output in Hz.
        nj: number of parts; where there are finished ones already, their number stays.
        processes: number of processes at a time.

    Returns:
        The tables wav.scp and utt2num_samples, and why utterances are not in them: reason by utterance.

    Raises:
        UserError: the table can't be read.
    """
    source, target = Path(source), Path(target)
    for left in (target / "data").glob("format.*.new*"):  # by runs that were killed
        shutil.rmtree(left, ignore_errors=True)
    chosen = _choose_parts(source, target, nj, audio_format, fs)
    folders = [folder for _, folder, _ in chosen]
    todo = [(part, folder) for part, folder, done in chosen if not done]
    with tqdm(total=sum(len(read_table(part)) for part, _ in todo), desc=f"format {target.name}", unit="utt") as bar:
        if processes == 1 or len(todo) < 2:
            for part, folder in todo:
                bar.update(format_part(part, folder, audio_format, fs))
        else:
            with workers(processes) as pool:
                jobs = [pool.submit(format_part, part, folder, audio_format, fs) for part, folder in todo]
                try:
                    for job in as_completed(jobs):
                        bar.update(job.result())
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    _remove_others(target, len(chosen))
    made: dict[str, dict[str, str]] = {"wav.scp": {}, "utt2num_samples": {}}
    for name, table in made.items():
        for folder in folders:
            table.update(_read(folder / name))
    return made, {key: reason for folder in folders for key, reason in _read(folder / LIST).items()}


def _choose_parts(source: Path, target: Path, wanted: int, audio_format: str, fs: int) -> list[tuple[Path, Path, bool]]:
    """Split a table into as many parts as are there already, if any of these is still good, else as many as wanted.

    Other parts would have other paths: all would be formatted again, and so would be all that is made from them.

    Returns:
        Each part's table and folder, and whether it is finished.
    """
    entries = list(read_table(source).items())

    def finished(parts: int) -> list[bool]:
        """Which of so many parts are there."""
        owns = [dict(entries[own]) for own in slices(len(entries), parts)]
        marks = [part_digest(own, audio_format, fs) for own in owns]
        return [is_complete(_part(target, number)[1], mark) for number, mark in enumerate(marks, 1)]

    before = next(number for number in count() if not _part(target, number + 1)[0].is_file())
    wanted, there = min(wanted, len(entries)), min(before, len(entries))
    done = finished(wanted)
    if there not in (0, wanted) and not all(done) and any(as_before := finished(there)):
        done = as_before
    places = [_part(target, number) for number in range(1, len(done) + 1)]
    split_table(source, [table for table, _ in places])
    for number in range(len(done) + 1, before + 1):
        _part(target, number)[0].unlink()
    return [(table, folder, whole) for (table, folder), whole in zip(places, done, strict=True)]


def _part(target: Path, number: int) -> tuple[Path, Path]:
    """Table and folder of a part."""
    return target / "logs" / f"wav.{number}.scp", target / "data" / f"format.{number}"


def _remove_others(target: Path, most: int) -> None:
    """Remove parts beyond a number: an earlier run had more."""
    for folder in (target / "data").glob("format.*"):
        number = folder.name.partition(".")[2]
        if number.isdecimal() and int(number) > most:
            shutil.rmtree(folder, ignore_errors=True)


def part_digest(entries: dict[str, str], audio_format: str, fs: int) -> str:
    """Hash of all that a part's output depends on: its entries, the files behind them, and the format."""
    words = [VERSION, audio_format, str(fs), *(f"{key} {entry}" for key, entry in entries.items())]
    paths = [path for entry in entries.values() if (path := path_of(entry))]
    return digest_of(words, [path for path in paths if Path(path).is_file()])


def format_part(part: Path, folder: Path, audio_format: str, fs: int) -> int:
    """Format one part's entries into ``folder`` and mark it; return how many there are.

    The folder is made under a name of this process's own and takes its place when it is whole: a process whose run was
    killed may still write for a moment.
    """
    entries = read_table(part)
    new = folder.with_name(f"{folder.name}.new{os.getpid()}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    writer = _write_archive if audio_format.endswith(".ark") else _write_files
    bad: dict[str, str] = {}
    lengths = writer(entries, new, audio_format, fs, bad)
    write_text(new / "wav.scp", (new / "wav.scp").read_text(encoding="utf-8").replace(f"{new}/", f"{folder}/"))
    write_text(new / "utt2num_samples", "".join(f"{key} {length}\n" for key, length in lengths.items()))
    write_text(new / LIST, "".join(f"{key} {' '.join(reason.split())}\n" for key, reason in bad.items()))
    if not any(entries[key].endswith("|") for key in bad):  # whether a command gives something else now, nobody knows
        set_complete(new, part_digest(entries, audio_format, fs))
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return len(entries)


def _read(path: Path) -> dict[str, str]:
    """A part's table, which is empty where all of the part is bad, or nothing."""
    return read_table(path) if path.stat().st_size else {}


def file_name(key: str) -> str:
    """An utterance id as the name of a file: without slashes, not hidden, not too long, different for different ids."""
    name = key.replace("%", "%25").replace("/", "%2F")
    if len(name.encode()) > _LONGEST:
        name = f"{name[:32]}%{hashlib.sha256(name.encode()).hexdigest()}"
    return f"%2E{name[1:]}" if name.startswith(".") else name


def _write_archive(
    entries: dict[str, str], folder: Path, audio_format: str, fs: int, bad: dict[str, str]
) -> dict[str, int]:
    import kaldiio

    lengths = {}
    ark, scp = folder / "data_wav.ark", folder / "wav.scp"
    options = {"format": audio_format.removesuffix(".ark"), "subtype": None}
    with ark.open("wb") as output, scp.open("w", encoding="utf-8") as index:
        for key, wave, _ in _load_all(entries, fs, audio_format, bad):
            kaldiio.save_ark(
                output, {key: (wave, fs)}, scp=index, append=True, write_function="soundfile", write_kwargs=options
            )
            lengths[key] = len(wave)
    return lengths


def _write_files(
    entries: dict[str, str], folder: Path, audio_format: str, fs: int, bad: dict[str, str]
) -> dict[str, int]:
    import soundfile

    lengths, lines = {}, []
    for key, wave, as_it_is in _load_all(entries, fs, audio_format, bad):
        path = Path(entries[key]) if as_it_is else folder / f"{file_name(key)}.{audio_format}"
        if not as_it_is:
            soundfile.write(path, wave, fs, format=audio_format)
        lines.append(f"{key} {path}\n")
        lengths[key] = len(wave)
    write_text(folder / "wav.scp", "".join(lines))
    return lengths


def _load_all(
    entries: dict[str, str], fs: int, audio_format: str, bad: dict[str, str]
) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Utterance, samples and whether the file fits as it is; what can't be read goes to ``bad`` with the reason."""
    for key, entry in entries.items():
        try:
            wave, as_it_is = load(entry, fs, audio_format)
        except UserError as error:
            bad[key] = str(error)
        else:
            yield key, wave, as_it_is


def load(entry: str, fs: int, audio_format: str) -> tuple[np.ndarray, bool]:
    """Read one wav.scp entry at the wanted rate.

    Args:
        entry: see :func:`espnet_gmot.kaldi.wav.read_sound`.
        fs: wanted sampling rate in Hz.
        audio_format: wanted file format.

    Returns:
        The samples (N,) or (N, C), and whether the file already is what is wanted.

    Raises:
        UserError: unreadable audio or a command that fails.
    """
    import soxr

    sound = read_sound(entry)
    as_it_is = sound.untouched and sound.rate == fs and _is_default(entry, audio_format, sound.subtype)
    wave = sound.samples if sound.rate == fs else soxr.resample(sound.samples, sound.rate, fs, quality="HQ")
    return np.clip(wave, -1.0, 1.0), as_it_is


def _is_default(path: str, audio_format: str, subtype: str) -> bool:
    import soundfile

    return path.lower().endswith(f".{audio_format}") and subtype == soundfile.default_subtype(audio_format)
