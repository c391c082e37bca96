"""Errors of every utterance as a CSV file: what resampling needs to be repeated, without anybody's words."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import replacing
from espnet_gmot.report.rows import read_csv
from espnet_gmot.report.scored import Row

_FIRST = ("set", "utterance", "characters")


@dataclass(frozen=True)
class Counted:
    """One system on one set with one seed, like a :class:`Row`, of which only the numbers are left.

    Attributes:
        system, name: of the system and of the set.
        lengths: reference tokens by ``speaker-utterance``.
        wrong: errors by ``speaker-utterance``; a mean over systems need not be whole.
        seed: of the training, where it is known.
    """

    system: str
    name: str
    lengths: dict[str, int]
    wrong: Mapping[str, float]
    seed: int | None = None

    def errors(self, keys: Iterable[str]) -> list[float]:
        """Errors of these sentences."""
        return [self.wrong[key] for key in keys]


def write_utterances(path: Path, groups: Mapping[tuple[str, str], Sequence[Row]], *, anonymous: bool = False) -> None:
    """Write a line for every utterance and a column for each training of a system.

    A column is ``SYSTEM:seedN``; ``SYSTEM:N``, counted from 0, where the seeds of a system aren't known.

    Args:
        path: the file.
        groups: rows by system and set, one for each seed; see :func:`espnet_gmot.report.tables.group`.
        anonymous: numbers instead of the names of speakers and utterances: ``s0001-00001``, …
    """
    names = {key: _names(groups, *key) for key in groups}
    # a set may lack a seed that another has: all of them, in their order
    columns = {
        column: None
        for system in dict.fromkeys(system for system, _ in groups)
        for column in sorted({each for key in groups if key[0] == system for each in names[key]}, key=_place)
    }
    with replacing(path) as handle:
        writer = csv.DictWriter(handle, [*_FIRST, *columns], lineterminator="\n")
        writer.writeheader()
        for name in dict.fromkeys(name for _, name in groups):
            here = [(system, rows) for (system, other), rows in groups.items() if other == name]
            lengths = here[0][1][0].lengths
            keys = sorted(lengths)
            called = _numbers(keys) if anonymous else keys
            found = {
                column: row.errors(keys)
                for system, rows in here
                for column, row in zip(names[system, name], rows, strict=True)
            }
            for place, key in enumerate(keys):
                counts = {column: errors[place] for column, errors in found.items()}
                writer.writerow({"set": name, "utterance": called[place], "characters": lengths[key], **counts})


def _names(groups: Mapping[tuple[str, str], Sequence[Row]], system: str, name: str) -> list[str]:
    """The columns of a system's rows on one set."""
    # one way for all sets of a system
    known = all(
        row.seed is not None and len({row.seed for row in rows}) == len(rows)
        for (other, _), rows in groups.items()
        if other == system
        for row in rows
    )
    return [f"{system}:seed{row.seed}" if known else f"{system}:{n}" for n, row in enumerate(groups[system, name])]


def _place(column: str) -> int:
    """The number at a column's end."""
    return int(column.rpartition(":")[2].removeprefix("seed"))


def _numbers(keys: Sequence[str]) -> list[str]:
    """``speaker-utterance`` names as numbers, in their order."""
    numbers: dict[str, int] = {}
    counts: Counter[str] = Counter()
    names = []
    for speaker in (key.split("-")[0] for key in keys):
        counts[speaker] += 1
        names.append(f"s{numbers.setdefault(speaker, len(numbers) + 1):04}-{counts[speaker]:05}")
    return names


def read_utterances(path: Path) -> dict[tuple[str, str], list[Counted]]:
    """Read what :func:`write_utterances` wrote, by system and set.

    Raises:
        UserError: no such file, no such columns, or a cell that is no number; names the line.
    """
    names, lines = read_csv(path, _FIRST, "`report --write_utterances` writes it")
    found: dict[tuple[str, str], list[Counted]] = {}
    for name in dict.fromkeys(line["set"] for _, line in lines):
        here = [(where, line) for where, line in lines if line["set"] == name]
        lengths = {line["utterance"]: _number(line["characters"], where) for where, line in here}
        for column in names[len(_FIRST) :]:
            cells = {line["utterance"]: (line[column], where) for where, line in here}
            if any(text for text, _ in cells.values()):  # a system that wasn't tried on this set has none
                wrong = {key: _number(text, f"{where}: {column}") for key, (text, where) in cells.items()}
                system, _, which = column.rpartition(":")
                seed = int(which.removeprefix("seed")) if re.fullmatch(r"seed\d+", which) else None
                found.setdefault((system, name), []).append(Counted(system, name, lengths, wrong, seed))
    return found


def _number(text: str, where: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{where}: {text!r} is no count; write the file again")
    return int(text)
