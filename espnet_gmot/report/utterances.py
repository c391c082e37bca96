"""Errors of every utterance as a CSV file: what resampling needs to be repeated, without anybody's words."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import replacing
from espnet_gmot.report.rows import read_csv
from espnet_gmot.report.scored import Row
from espnet_gmot.report.speakers import cut

_FIRST = ("set", "utterance", "characters")
_SPEAKER = "speaker"


@dataclass(frozen=True)
class Counted:
    """One system on one set with one seed, like a :class:`Row`, of which only the numbers are left.

    Attributes:
        system, name: of the system and of the set.
        lengths: reference tokens by ``speaker-utterance``.
        wrong: errors by ``speaker-utterance``; a mean over systems need not be whole.
        seed: of the training, where it is known.
        speakers: by ``speaker-utterance``; by default what stands before the first hyphen.
        late: whether it was trained or scored when the test set was known already.
    """

    system: str
    name: str
    lengths: dict[str, int]
    wrong: Mapping[str, float]
    seed: int | None = None
    speakers: Mapping[str, str] = field(default_factory=dict)
    late: bool = False

    def __post_init__(self) -> None:
        if not self.speakers:
            object.__setattr__(self, "speakers", {key: cut(key) for key in self.lengths})

    @property
    def rate(self) -> float:
        """Errors per reference token."""
        return sum(self.wrong.values()) / self.size

    @property
    def size(self) -> int:
        """Reference tokens."""
        return sum(self.lengths.values())

    def errors(self, keys: Iterable[str]) -> list[float]:
        """Errors of these sentences."""
        return [self.wrong[key] for key in keys]


def write_utterances(path: Path, groups: Mapping[tuple[str, str], Sequence[Row]], *, anonymous: bool = False) -> None:
    """Write a line for every utterance and a column for each training of a system.

    A column is ``SYSTEM:seedN``; ``SYSTEM:N``, counted from 0, where the seeds of a system aren't known. A column
    ``speaker`` is there where a name doesn't tell: speakers may have hyphens.

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
    first = {name: next(rows[0] for (_, other), rows in groups.items() if other == name) for _, name in groups}
    telling = anonymous or all(cut(key) == who for row in first.values() for key, who in row.speakers.items())
    more = [] if telling else [_SPEAKER]
    with replacing(path) as handle:
        writer = csv.DictWriter(handle, [*_FIRST, *more, *columns], lineterminator="\n")
        writer.writeheader()
        for name, one in first.items():
            here = [(system, rows) for (system, other), rows in groups.items() if other == name]
            lengths, speakers = one.lengths, one.speakers
            keys = sorted(lengths)
            called = _numbers(keys, speakers) if anonymous else keys
            found = {
                column: row.errors(keys)
                for system, rows in here
                for column, row in zip(names[system, name], rows, strict=True)
            }
            for place, key in enumerate(keys):
                counts = {column: errors[place] for column, errors in found.items()}
                who = dict.fromkeys(more, speakers[key])
                row = {"set": name, "utterance": called[place], "characters": lengths[key], **who, **counts}
                writer.writerow(row)


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


def _numbers(keys: Sequence[str], speakers: Mapping[str, str]) -> list[str]:
    """``speaker-utterance`` names as numbers, in their order."""
    numbers: dict[str, int] = {}
    counts: Counter[str] = Counter()
    names = []
    for speaker in (speakers[key] for key in keys):
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
        speakers = {line["utterance"]: line[_SPEAKER] for _, line in here} if _SPEAKER in names else {}
        for column in (column for column in names if column not in (*_FIRST, _SPEAKER)):
            cells = {line["utterance"]: (line[column], where) for where, line in here}
            if any(text for text, _ in cells.values()):  # a system that wasn't tried on this set has none
                wrong = {key: _number(text, f"{where}: {column}") for key, (text, where) in cells.items()}
                system, _, which = column.rpartition(":")
                seed = int(which.removeprefix("seed")) if re.fullmatch(r"seed\d+", which) else None
                found.setdefault((system, name), []).append(Counted(system, name, lengths, wrong, seed, speakers))
    return found


def _number(text: str, where: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{where}: {text!r} is no count; write the file again")
    return int(text)
