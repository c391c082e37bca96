"""CSV files with a header, a line for each of some dataclass: written in one step, and read back with clear errors."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from espnet_gmot.errors import UserError
from espnet_gmot.files import replacing

T = TypeVar("T")


def write_rows(path: str | Path, kind: type, rows: Iterable[Any]) -> None:
    """Write dataclass objects.

    Args:
        path: the file.
        kind: the dataclass, whose fields are the columns.
        rows: its objects; floats keep six digits.
    """
    with replacing(Path(path)) as handle:
        writer = csv.DictWriter(handle, [field.name for field in fields(kind)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()})


def read_rows(path: str | Path, kind: type[T], source: str) -> list[tuple[str, T]]:
    """Read what :func:`write_rows` wrote: each object with its place in the file.

    Args:
        path: the file.
        kind: the dataclass; its fields are of type str, int or float. Files may lack those with a default.
        source: what writes such a file.

    Raises:
        UserError: no such file, a column is missing, or a value is not of its type; names the line.
    """
    columns: list[Any] = list(fields(kind))  # type: ignore[arg-type]
    names, rows = read_csv(Path(path), [field.name for field in columns if field.default is MISSING], source)
    there = [field for field in columns if field.name in names]
    return [
        (where, kind(**{field.name: _value(row[field.name], field.type, f"{where}: {field.name}") for field in there}))
        for where, row in rows
    ]


def read_csv(path: Path, needed: Sequence[str], source: str) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """The columns of a CSV file with a header, and its lines, each with its place.

    Args:
        path: the file.
        needed: columns that must be there.
        source: what writes such a file.

    Raises:
        UserError: no such file, no CSV in UTF-8, a column is missing, or there is no line.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {source}")
    with _named(path, source), path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        names = list(reader.fieldnames or ())
        if missing := [name for name in needed if name not in names]:
            raise UserError(f"{path}: no column {missing[0]!r}; {source}")
        # a line that is cut short has None for what it lacks
        rows = [(f"{path}:{reader.line_num}", {name: row[name] or "" for name in names}) for row in reader]
    if not rows:
        raise UserError(f"{path}: holds no results yet")
    return names, rows


@contextmanager
def _named(path: Path, source: str) -> Iterator[None]:
    """Say which file is no CSV in UTF-8."""
    try:
        yield
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no CSV file in UTF-8 ({error}); {source}") from error


def _value(text: str, kind: Any, where: str) -> str | int | float:
    try:
        return kind(text)
    except ValueError as error:
        raise UserError(f"{where}: {text!r} is no number; write the file again") from error
