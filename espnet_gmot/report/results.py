"""Results as a CSV file, one line a system, seed and set: what comparisons write and everything else reads."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.report.cer import Counts
from espnet_gmot.report.rows import read_rows, write_rows


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
    def late(self) -> bool:
        """Whether it was trained or scored when the test set was known already."""
        return self.phase == "after"

    @property
    def counts(self) -> Counts:
        """The errors."""
        correct = self.characters - self.substitutions - self.deletions
        wrong = self.substitutions, self.deletions, self.insertions, self.wrong
        return Counts(self.utterances, self.characters, correct, *wrong)


def write_results(path: str | Path, results: Iterable[Result]) -> None:
    """Write a CSV file with a header, in one step."""
    write_rows(path, Result, results)


def read_results(path: str | Path) -> list[Result]:
    """Read what :func:`write_results` wrote.

    Raises:
        UserError: no such file, a column is missing, a value is not of its type, a cell stands there twice, or its
            counts contradict each other; names the line.
    """
    results: list[Result] = []
    for where, result in read_rows(path, Result, "a comparison writes it (run_comparison.sh)"):
        results.append(_checked(result, results, where))
    return results


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
