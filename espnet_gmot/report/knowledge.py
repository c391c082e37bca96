"""What a language model would have chosen where a recogniser took another character: the table, and its CSV file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from espnet_gmot.report.rows import read_rows, write_rows
from espnet_gmot.report.tables import percent, table


@dataclass(frozen=True)
class Chosen:
    """What a language model would have chosen where a recogniser took another character.

    Attributes:
        teacher, system, set: which language model, whose errors, on what; all seeds of a system together.
        sound: how alike right and recognised character sound, see :func:`espnet_gmot.report.homophones.similarity`.
        substitutions: how many.
        judged: those in which both characters are tokens of the model.
        alone, heard, said: of these, those in which it finds the right character likelier: without any sentence, in
            the sentence as it was recognised, and in the reference.
    """

    teacher: str
    system: str
    set: str
    sound: str
    substitutions: int
    judged: int
    alone: int
    heard: int
    said: int


def render(chosen: Iterable[Chosen]) -> str:
    """A table for readers."""
    body = []
    for each in chosen:
        shares = (percent(right, each.judged) for right in (each.alone, each.heard, each.said))
        body.append((each.teacher, each.system, each.set, each.sound, f"{each.judged}/{each.substitutions}", *shares))
    head = ("teacher", "system", "set", "substitution", "judged", "alone", "in what was recognised", "in the reference")
    title = "Substitutions in which a teacher finds the right character likelier than the recognised one\n"
    return title + table(head, body, range(4, 8))


def write_choices(path: Path, chosen: Iterable[Chosen]) -> None:
    """Write a CSV file with a header, in one step."""
    write_rows(path, Chosen, chosen)


def read_choices(path: Path) -> list[Chosen]:
    """Read what :func:`write_choices` wrote.

    Raises:
        UserError: no such file, a column is missing, or a value is no number; names the line.
    """
    return [chosen for _, chosen in read_rows(path, Chosen, "report --errors --write_choices writes it")]
