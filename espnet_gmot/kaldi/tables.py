"""Kaldi's data directories: two-column tables keyed by utterance, sorted as LC_ALL=C sorts."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text

UTTERANCE_TABLES = ("wav.scp", "text", "utt2spk", "feats.scp", "utt2uniq", "utt2num_samples", "feats_shape", "utt2lang")
"""Files of a data directory with one line per utterance."""


def read_table(path: str | Path) -> dict[str, str]:
    """Read ``key value…`` lines.

    Args:
        path: table, UTF-8; a line without a value gives an empty string.

    Returns:
        Values by key, in the file's order.

    Raises:
        UserError: the file is absent, or a key occurs twice.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the earlier stages first")
    table: dict[str, str] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.rstrip("\n").split(maxsplit=1)
            if not fields:
                continue
            if fields[0] in table:
                raise UserError(f"{path}:{number}: {fields[0]} occurs twice; keep one line for each utterance")
            table[fields[0]] = fields[1].rstrip() if len(fields) > 1 else ""
    return table


def write_table(path: str | Path, table: Mapping[str, str]) -> None:
    """Write ``key value`` lines sorted by key (code points, which is LC_ALL=C's order for UTF-8), atomically."""
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
        UserError: utt2spk is absent, or there are ``segments`` (which asr.sh's engine can cut, not this one).
    """
    directory = Path(directory)
    if (directory / "segments").exists():
        raise UserError(f"{directory}/segments: cutting recordings needs asr.sh; give --espnet_root")
    if not (directory / "utt2spk").is_file():
        raise UserError(f"{directory}/utt2spk: no such file; run the earlier stages first")
    return {name: read_table(directory / name) for name in UTTERANCE_TABLES if (directory / name).is_file()}


def write_data_dir(directory: str | Path, tables: Mapping[str, Mapping[str, str]]) -> int:
    """Write the utterances that every table holds, sorted, and spk2utt; return how many there are.

    Raises:
        UserError: no utterance occurs in all tables.
    """
    directory = Path(directory)
    kept = set.intersection(*(set(table) for table in tables.values()))
    if not kept:
        sizes = ", ".join(f"{name} {len(table)}" for name, table in tables.items())
        raise UserError(f"{directory}: no utterance occurs in all of its tables ({sizes})")
    for name, table in tables.items():
        write_table(directory / name, {key: value for key, value in table.items() if key in kept})
    write_table(directory / "spk2utt", spk2utt({key: tables["utt2spk"][key] for key in kept}))
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
    write_data_dir(target, merged)


def split_table(path: str | Path, parts: Iterable[str | Path]) -> None:
    """Split a table's lines into ``parts`` files of nearly equal length (the earlier ones hold one line more)."""
    lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines(keepends=True) if line.strip()]
    parts = [Path(part) for part in parts]
    size, longer = divmod(len(lines), len(parts))
    start = 0
    for index, part in enumerate(parts):
        stop = start + size + (index < longer)
        write_text(part, "".join(lines[start:stop]))
        start = stop


def count_lines(path: str | Path) -> int:
    """Number of lines that hold anything."""
    with Path(path).open(encoding="utf-8") as lines:
        return sum(1 for line in lines if line.strip())


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 text file, blank ends stripped.

    Raises:
        UserError: the file is missing or not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as handle:
            for number, line in enumerate(handle, 1):
                yield number, line.strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}); convert it, e.g. iconv -f gb18030 -t utf-8") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a text file") from error


def read_transcripts(path: Path) -> dict[str, str]:
    """Transcripts by utterance id, in the file's order.

    Raises:
        UserError: the file is missing, empty or not UTF-8; a transcript is empty or an id occurs twice (the line is
            named).
    """
    transcripts: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in read_lines(path):
        utterance, _, text = line.replace("\t", " ").partition(" ")
        if not utterance:
            raise UserError(f"{path}:{number}: empty line; each line must read `utterance transcript`")
        if not text.strip():
            raise UserError(f"{path}:{number}: utterance {utterance} has no transcript; add it or remove the line")
        if utterance in lines:
            raise UserError(
                f"{path}:{number}: utterance {utterance} is already on line {lines[utterance]}; remove one of them"
            )
        transcripts[utterance], lines[utterance] = text.strip(), number
    if not transcripts:
        raise UserError(f"{path}: holds no transcripts; each line must read `utterance transcript`")
    return transcripts
