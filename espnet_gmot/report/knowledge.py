"""What a language model can tell of a recogniser's substitutions: the table, and its CSV file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from espnet_gmot.report.rows import read_rows, write_rows
from espnet_gmot.report.tables import table, with_error

ALL = "all"


@dataclass(frozen=True)
class Knowledge:
    """How often a language model tells the right character's place from one where the recognised character is right.

    Attributes:
        teacher, system, set: which language model, whose errors, on what; all seeds of a system together.
        sound: how alike the two characters sound, see :func:`espnet_gmot.report.homophones.similarity`, or ``all``.
        substitutions: how many.
        asked: those that the model can weigh: both characters are tokens of its vocabulary, the sentences are short
            enough, and the recognised character is right somewhere in the set.
        heard, said: the share of these in which it finds the right character likelier at its own place than at the
            other's, in the sentences as they were recognised, and as they should be; 0.5 is what a coin would do.
        heard_error, said_error: standard errors, utterances being drawn with all their seeds.
    """

    teacher: str
    system: str
    set: str
    sound: str
    substitutions: int
    asked: int
    heard: float
    heard_error: float
    said: float
    said_error: float

    def cells(self) -> list[str]:
        """Sound, numbers and shares in %, for a table."""
        shares = ((self.heard, self.heard_error), (self.said, self.said_error))
        shown = [with_error(100 * share, 100 * error, 1) if self.asked else "–" for share, error in shares]
        return [self.sound, f"{self.asked} of {self.substitutions}", *shown]


#: Titles of :meth:`Knowledge.cells`.
HEAD = ("substitution", "asked", "as recognised %", "in the reference %")


def render(found: Iterable[Knowledge]) -> str:
    """A table for readers."""
    body = [(each.teacher, each.system, each.set, *each.cells()) for each in found]
    title = (
        "How often a teacher tells the right character's place from one where the recognised character is right "
        "(50 %: never), with standard errors\n"
    )
    return title + table(("teacher", "system", "set", *HEAD), body, range(4, 7))


def write_knowledge(path: Path, found: Iterable[Knowledge]) -> None:
    """Write a CSV file with a header, in one step."""
    write_rows(path, Knowledge, found)


def read_knowledge(path: Path) -> list[Knowledge]:
    """Read what :func:`write_knowledge` wrote.

    Raises:
        UserError: no such file, a column is missing, or a value is no number; names the line.
    """
    return [found for _, found in read_rows(path, Knowledge, "report --errors --write_knowledge writes it")]
