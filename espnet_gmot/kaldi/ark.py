"""Teacher features in Kaldi archives (matrices written and read by kaldiio), one folder per data set.

A folder holds ``teacher.scp`` (``utterance ark:offset``, the stream that ESPnet reads), ``teacher.N.ark``, what is
known of each ark in ``teacher.N.json`` and of the whole in ``teacher.json``. Utterances with equal transcripts, such
as speed-perturbed copies, point to one matrix. Whatever precision they are stored in, they are read as float32.
"""

import contextlib
import functools
import json
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from espnet_gmot.errors import UserError
from espnet_gmot.files import replacing

# Kaldi knows no half precision: its 16-bit matrix ("CM2") has 65536 even steps from the matrix's least to its largest
# value, its 8-bit one ("CM") 256 uneven steps per column, by that column's quartiles. kaldiio's numbers for them.
PRECISIONS: dict[str, int | None] = {"float32": None, "float16": 3, "int8": 2}
# Binary Kaldi float matrix: "\0B" "FM " then row and column counts, each as one size byte and an int32.
_FLOAT = struct.Struct("<5sbibi")
# Compressed: "\0B" and "CM " or "CM2 ", then least value, range, rows and columns.
_COMPRESSED = struct.Struct("<ffii")
_LONGEST_HEADER = len(b"\0BCM2 ") + _COMPRESSED.size


def write_archive(path: Path, matrices: Iterable[tuple[str, np.ndarray]], precision: str = "float32") -> list[int]:
    """Write named matrices to one Kaldi ark, in one step: the file is complete or absent.

    Args:
        path: the ark.
        matrices: keys and (U, D) matrices.
        precision: how to store them, one of `PRECISIONS`.

    Returns:
        Each matrix's offset, as an scp file needs it (``ark:offset``).

    Raises:
        UserError: the disk is full or the place is not writable.
    """
    import kaldiio

    offsets = []
    with replacing(path, "wb") as handle:
        for key, matrix in matrices:
            offsets.append(handle.tell() + len(key.encode()) + 1)
            rows = {key: np.ascontiguousarray(matrix, dtype=np.float32)}
            kaldiio.save_ark(handle, rows, compression_method=PRECISIONS[precision])
    return offsets


def _read_header(data: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and bytes (header included) of the matrix that ``data`` begins, or None if it is no such thing.

    Raises:
        struct.error: ``data`` ends inside the header.
    """
    if data[:5] == b"\0BFM ":
        _, four, rows, four_too, columns = _FLOAT.unpack_from(data)
        return (rows, columns, _FLOAT.size + 4 * rows * columns) if four == four_too == 4 else None
    for magic, item, per_column in ((b"\0BCM2 ", 2, 0), (b"\0BCM ", 1, 8)):
        if data.startswith(magic):
            _, _, rows, columns = _COMPRESSED.unpack_from(data, len(magic))
            return rows, columns, len(magic) + _COMPRESSED.size + columns * (per_column + item * rows)
    if len(data) < _FLOAT.size:
        raise struct.error("too short")
    return None


def check_archive(path: Path, offsets: Sequence[int], width: int) -> None:
    """Check that an ark holds a whole matrix of ``width`` columns at each offset (only headers are read).

    Raises:
        UserError: the ark is missing or truncated, or something else is at an offset.
    """
    fix = "run the same dump again: it keeps what is whole and mends the rest"
    if not path.is_file():
        raise UserError(f"{path}: missing; {fix}")
    size = path.stat().st_size
    with path.open("rb") as handle:
        for offset in sorted(set(offsets)):
            handle.seek(offset)
            try:
                header = _read_header(handle.read(_LONGEST_HEADER))
            except struct.error as error:
                raise UserError(f"{path}: truncated at byte {size}, a matrix starts at byte {offset}; {fix}") from error
            if header is None or header[0] < 1 or header[1] != width:
                raise UserError(f"{path}: no float matrix of {width} columns at byte {offset}; {fix}")
            if offset + header[2] > size:
                raise UserError(f"{path}: truncated at byte {size} inside the matrix at byte {offset}; {fix}")


def note_of(ark: str | Path) -> Path:
    """Where what is known of an ark is noted."""
    return Path(ark).with_suffix(".json")


def read_note(path: Path) -> dict[str, Any] | None:
    """What is known of an ark; None where it is missing or cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def noted_features(scp: str | Path) -> list[str]:
    """What decided the features that a table lists (model, layer …), as far as notes lie beside its arks.

    The table itself may be the same for the features of two models: names and offsets tell lengths only. For 120,000
    utterances this takes 0.04 s the first time in a process, then 0.004 s.

    Returns:
        Each once, sorted; empty for archives of others.

    Raises:
        OSError: there is no such table.
    """
    found = set()
    for note in _notes(str(scp), *_state(str(scp))):
        with contextlib.suppress(FileNotFoundError):
            found.add(_features(note, *_state(note)))
    return sorted(found - {""})


def _state(path: str) -> tuple[int, int, int]:
    """What changes with a file."""
    state = os.stat(path)
    return state.st_ino, state.st_size, state.st_mtime_ns


@functools.lru_cache(maxsize=256)
def _notes(scp: str, *_: int) -> list[str]:
    """Where notes would lie of the arks that a table names; ``_`` is its state: it is read anew once that changes."""
    with open(scp, "rb") as lines:
        arks = {line.rpartition(b".ark:")[0].partition(b" ")[2].strip() for line in lines}
    return [str(note_of(f"{os.fsdecode(ark)}.ark")) for ark in sorted(arks) if ark]


@functools.lru_cache(maxsize=4096)
def _features(note: str, *_: int) -> str:
    """What a note says of the features, as text; empty where it is none of ours. ``_`` is its state."""
    content = read_note(Path(note))
    return (
        json.dumps(content["features"], sort_keys=True) if isinstance(content, dict) and "features" in content else ""
    )


def place_of(entry: str) -> tuple[str, int]:
    """The file and the byte at which an entry of an scp file has its matrix."""
    place, _, offset = entry.rpartition(":")
    return (place, int(offset)) if place and offset.isdecimal() else (entry, 0)


def read_matrix(entry: str) -> np.ndarray:
    """Read one matrix of an scp file.

    Args:
        entry: ``ark:offset``, or a file that holds one matrix.

    Returns:
        (T, D) as stored, T > 0, finite.

    Raises:
        UserError: missing, unreadable, cut short, no matrix, not finite; commands and pickles are never run.
    """
    import kaldiio

    if entry.endswith("|"):
        raise UserError(f"{entry}: a command; write its features into an archive and name that")
    place, start = place_of(entry)
    try:
        with open(place, "rb") as handle:
            handle.seek(start)
            if handle.read(3) == b"PKL":
                raise UserError(f"{entry}: a pickle, which could run anything; make the features again")
        matrix = kaldiio.load_mat(entry)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{entry}: no such file; make the features again") from error
    except (MemoryError, OverflowError) as error:
        raise UserError(f"{entry}: its header announces more than any memory holds: make the features again") from error
    except Exception as error:
        # kaldiio has no error of its own: what a spoilt archive raises depends on where it is spoilt
        reason = " ".join(str(error).split()) or "it ends too early"
        raise UserError(f"{entry}: unreadable features ({reason}), perhaps cut; make them again") from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2:
        what = "audio" if isinstance(matrix, tuple) else f"an array of {matrix.ndim} dimensions"
        raise UserError(f"{entry}: holds {what}, not a matrix of features; give feats.scp of features")
    if matrix.size == 0:
        raise UserError(f"{entry}: holds no frames; make the features again")
    if not np.isfinite(matrix).all():
        raise UserError(f"{entry}: {int((~np.isfinite(matrix)).sum())} of its values are not finite; make them again")
    return matrix
