"""Results as a CSV file, one line a system, seed and set: what comparisons write and everything else reads."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from espnet_gmot.errors import UserError
from espnet_gmot.files import replacing
from espnet_gmot.report.cer import Counts


@dataclass(frozen=True)
class Result:
    """One line.

    Attributes:
        system, seed, set: which cell, and what was decoded.
        utterances, characters: size of the reference.
        errors, substitutions, deletions, insertions: of the alignment; ``wrong``: utterances with any.
        cer: errors per character, a fraction.
        counted_by: ``sclite`` or ``jiwer``.
        config, teacher, options: what the system is; ``trials``: systems of this configuration that were tried in the
            folder, that is how much it was tuned.
        epochs, steps: of the training; ``hours``: wall clock of its epochs; ``cpu_hours``: processor time of the calls
            that came to an end; ``max_rss_gb``: the largest process.
        phase: ``dev`` (before the test set was looked at), ``final``, or ``after`` (trained with the test set known).
        date, commit, versions, hardware: when, with what and on what it was trained.
        experiment: the experiment's folder.
    """

    system: str
    seed: int
    set: str
    utterances: int
    characters: int
    errors: int
    substitutions: int
    deletions: int
    insertions: int
    wrong: int
    cer: float
    counted_by: str
    config: str
    teacher: str
    options: str
    trials: int
    epochs: int
    steps: int
    hours: float
    cpu_hours: float
    max_rss_gb: float
    phase: str
    date: str
    commit: str
    versions: str
    hardware: str
    experiment: str

    @property
    def counts(self) -> Counts:
        """The errors."""
        correct = self.characters - self.substitutions - self.deletions
        wrong = self.substitutions, self.deletions, self.insertions, self.wrong
        return Counts(self.utterances, self.characters, correct, *wrong)


NAMES = tuple(field.name for field in fields(Result))


def write_results(path: str | Path, results: Iterable[Result]) -> None:
    """Write a CSV file with a header, in one step."""
    with replacing(Path(path)) as handle:
        writer = csv.DictWriter(handle, NAMES, lineterminator="\n")
        writer.writeheader()
        for result in results:
            row = asdict(result)
            writer.writerow(
                {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            )


def read_results(path: str | Path) -> list[Result]:
    """Read what :func:`write_results` wrote.

    Raises:
        UserError: no such file, a column is missing, a value is not of its type, a cell stands there twice, or its
            counts contradict each other; names the line.
    """
    results: list[Result] = []
    for where, row in read_csv(Path(path), NAMES, "a comparison writes it (run_comparison.sh)")[1]:
        values: dict[str, Any] = {
            field.name: _value(row[field.name], field.type, f"{where}: {field.name}") for field in fields(Result)
        }
        results.append(_checked(Result(**values), results, where))
    return results


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
    with _named(path), path.open(encoding="utf-8-sig", newline="") as stream:
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
def _named(path: Path) -> Iterator[None]:
    """Say which file is no CSV in UTF-8."""
    try:
        yield
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no CSV file in UTF-8 ({error}); give one that a comparison wrote") from error


def _value(text: str, kind: Any, where: str) -> str | int | float:
    try:
        return kind(text)
    except ValueError as error:
        raise UserError(f"{where}: {text!r} is no number; write the file again") from error


def _checked(result: Result, others: list[Result], where: str) -> Result:
    cell = f"{result.system}, seed {result.seed}, {result.set}"
    if any((o.system, o.seed, o.set) == (result.system, result.seed, result.set) for o in others):
        raise UserError(f"{where}: {cell} stands there twice; keep one line")
    parts = result.substitutions + result.deletions + result.insertions
    if result.errors != parts or result.characters < 1:
        raise UserError(
            f"{where}: {cell}: {result.errors} errors of {result.characters} characters, but sub + del + ins is {parts}"
        )
    return result
