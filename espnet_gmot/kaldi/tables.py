"""Kaldi's data directories: two-column tables keyed by utterance, sorted as LC_ALL=C sorts."""

import logging
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text

_LOG = logging.getLogger(__name__)
# White space, and byte order marks and zero-width spaces that concatenating files leaves at their joints.
_ENDS = re.compile(r"^[\s\ufeff\u200b]+|[\s\ufeff\u200b]+$")
# Control characters, soft hyphens, zero-width spaces, word joiners, marks of direction and of byte order, fillers of
# Hangul, selectors of variants, tags, marks of annotations.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_UNUSUAL_SPACE = re.compile(r"[^\S \t]")
UTTERANCE_TABLES = ("wav.scp", "text", "utt2spk", "feats.scp", "utt2uniq", "utt2num_samples", "feats_shape", "utt2lang")
"""Files of a data directory with one line per utterance."""


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 text file that hold anything, without white space at their ends.

    A byte order mark is ignored; lines end at \\n or \\r\\n only, since other separators may lie within a text.

    Raises:
        UserError: the file is missing, not UTF-8, or has carriage returns within lines.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line := _ENDS.sub("", line):
                    if "\r" in line:
                        end = f"tr '\\r' '\\n' < {shlex.quote(str(path))} > NEW"
                        raise UserError(
                            f"{path}:{number}: carriage returns within the line; end lines anew, e.g. {end}"
                        )
                    yield number, line
    except UnicodeDecodeError as error:
        with path.open("rb") as handle:
            utf16 = handle.read(2) in (b"\xff\xfe", b"\xfe\xff")
        command = f"iconv -f {'UTF-16' if utf16 else 'GB18030'} -t UTF-8 {shlex.quote(str(path))}"
        raise UserError(f"{path}: not UTF-8 ({error.reason}); convert it, e.g. {command} > NEW") from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the earlier stages first, or give another") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a text file") from error


def read_table(path: str | Path) -> dict[str, str]:
    """Read ``key value…`` lines, separated by white space of any kind.

    Args:
        path: table, UTF-8; a line without a value gives an empty string.

    Returns:
        Values by key, in the file's order.

    Raises:
        UserError: the file is absent, not UTF-8 or empty, or a key occurs twice (both lines are named).
    """
    table: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in read_lines(path):
        word, *value = line.split(maxsplit=1)
        key = _INVISIBLE.sub("", word)
        if not key:
            if not value:
                continue  # what an editor of another system leaves at the end
            raise UserError(f"{path}:{number}: the id {word!r} is nothing but invisible characters: give it a name")
        if key in table:
            raise UserError(f"{path}:{number}: {key} is already on line {lines[key]}; keep one line for each utterance")
        table[key], lines[key] = value[0] if value else "", number
    if not table:
        raise UserError(f"{path}: empty; it must hold `utterance value` lines: make it again")
    return table


def read_transcripts(path: str | Path, *, allow_empty: bool = False) -> dict[str, str]:
    """Read ``utterance transcript`` lines; transcripts are cleaned by :func:`clean_text`, with a notice.

    Args:
        path: table, UTF-8.
        allow_empty: let utterances without a transcript pass, as the empty string.

    Returns:
        Transcripts by utterance, in the file's order.

    Raises:
        UserError: as :func:`read_table`, or a transcript is empty.
    """
    raw = read_table(path)
    texts = {key: clean_text(text) for key, text in raw.items()}
    if lost := [key for key, text in raw.items() if "\ufffd" in text]:
        _LOG.warning(
            "%s: %d transcripts hold U+FFFD, which stands for what somebody's reader couldn't decode, the first is %s",
            path,
            len(lost),
            lost[0],
        )
    if odd := [key for key, text in raw.items() if _INVISIBLE.search(text) or _UNUSUAL_SPACE.search(text)]:
        _LOG.warning(
            "%s: %d transcripts held invisible characters or unusual spaces, the first is %s: cleaned",
            path,
            len(odd),
            odd[0],
        )
    if not allow_empty and (empty := [key for key, text in texts.items() if not text]):
        raise UserError(
            f"{path}: {len(empty)} of {len(texts)} utterances have no transcript, the first is {empty[0]}; add it or "
            "remove the line"
        )
    return texts


def clean_text(text: str) -> str:
    """White space of any kind becomes one plain space, and invisible characters vanish.

    Joiners (U+200C, U+200D) stay: Persian and several Indian scripts spell with them.
    """
    return " ".join(_INVISIBLE.sub("", text).split())


def write_table(path: str | Path, table: Mapping[str, str]) -> None:
    """Write ``key value`` lines sorted by key (code points, which is LC_ALL=C's order for UTF-8), atomically.

    Raises:
        UserError: white space in a key or a line break in a value, which would read as other lines: a folder's name in
            somebody's archive could so put a command into wav.scp.
    """
    for key, value in table.items():
        if len(key.split()) != 1 or "\n" in value:
            raise UserError(f"{path}: {key!r} {value!r} has white space in an id or a line break: rename it")
    write_text(path, "".join(f"{key} {table[key]}\n" for key in sorted(table)))


def spk2utt(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """Invert utt2spk: the sorted utterances of each speaker, separated by spaces."""
    speakers: dict[str, list[str]] = {}
    for utterance in sorted(utt2spk):
        speakers.setdefault(utt2spk[utterance], []).append(utterance)
    return {speaker: " ".join(utterances) for speaker, utterances in speakers.items()}


def read_data_dir(directory: str | Path) -> dict[str, dict[str, str]]:
    """Read every utterance table of a data directory.

    Returns:
        For each file name of :data:`UTTERANCE_TABLES` that is there, values by utterance.

    Raises:
        UserError: utt2spk is absent or lacks a speaker, or there are ``segments`` (which asr.sh's engine can cut, not
            this one).
    """
    directory = Path(directory)
    if (directory / "segments").exists():
        raise UserError(f"{directory}/segments: cutting recordings needs asr.sh; give --espnet_root")
    if not (directory / "utt2spk").is_file():
        raise UserError(f"{directory}/utt2spk: no such file; run the earlier stages first")
    tables = {
        name: read_transcripts(path, allow_empty=True) if name == "text" else read_table(path)
        for name in UTTERANCE_TABLES
        if (path := directory / name).is_file()
    }
    if alone := [key for key, speaker in tables["utt2spk"].items() if len(speaker.split()) != 1]:
        raise UserError(
            f"{directory}/utt2spk: {alone[0]} has no one speaker; where none is known, give the utterance's id"
        )
    return tables


def write_data_dir(directory: str | Path, tables: Mapping[str, Mapping[str, str]], *, common: bool = True) -> int:
    """Write tables, sorted, and spk2utt.

    Args:
        directory: data directory.
        tables: values by utterance of each file, utt2spk among them.
        common: only the utterances that every table holds.

    Returns:
        The number of utterances that every table holds.

    Raises:
        UserError: that is none.
    """
    directory = Path(directory)
    kept = set.intersection(*(set(table) for table in tables.values()))
    if not kept:
        sizes = ", ".join(f"{name} {len(table)}" for name, table in tables.items())
        raise UserError(f"{directory}: no utterance occurs in all of its tables ({sizes})")
    if common:
        tables = {name: {key: value for key, value in table.items() if key in kept} for name, table in tables.items()}
    for name, table in tables.items():
        write_table(directory / name, table)
    write_table(directory / "spk2utt", spk2utt(tables["utt2spk"]))
    return len(kept)


def combine_data_dirs(target: str | Path, sources: Iterable[str | Path]) -> None:
    """Merge data directories into ``target``: the tables that all of them hold, and utt2uniq where any does.

    Raises:
        UserError: two of them share an utterance.
    """
    parts = [(Path(source), read_data_dir(source)) for source in sources]
    if any("utt2uniq" in tables for _, tables in parts):
        for _, tables in parts:
            tables.setdefault("utt2uniq", {key: key for key in tables["utt2spk"]})
    merged: dict[str, dict[str, str]] = {}
    for name in set.intersection(*(set(tables) for _, tables in parts)):
        merged[name] = {}
        for source, tables in parts:
            if both := merged[name].keys() & tables[name].keys():
                raise UserError(f"{source}/{name}: {min(both)} also occurs in another of the combined directories")
            merged[name].update(tables[name])
    write_data_dir(target, merged, common=False)


def split_table(path: str | Path, parts: Iterable[str | Path]) -> None:
    """Split a table's lines into ``parts`` files of nearly equal length (the earlier ones hold one line more)."""
    lines = [line for _, line in read_lines(path)]
    parts = [Path(part) for part in parts]
    for part, own in zip(parts, slices(len(lines), len(parts)), strict=True):
        write_text(part, "".join(f"{line}\n" for line in lines[own]))


def slices(total: int, parts: int) -> list[slice]:
    """Places of ``total`` lines in so many parts of nearly equal length (the earlier ones hold one line more)."""
    size, longer = divmod(total, parts)
    ends = [size * number + min(number, longer) for number in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def count_lines(path: str | Path) -> int:
    """Number of lines that hold anything."""
    return sum(1 for _ in read_lines(path))
