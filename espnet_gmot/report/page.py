"""``report --html``: one page, in one file, of what systems got wrong, how they learned and what they couple."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.report import pictures
from espnet_gmot.report.cells import LATE, marked
from espnet_gmot.report.cer import Edit, written
from espnet_gmot.report.differences import Difference, differences
from espnet_gmot.report.homophones import TONED, similarity
from espnet_gmot.report.knowledge import HEAD, Knowledge
from espnet_gmot.report.measure import Score, left_out
from espnet_gmot.report.origin import here, origin, parameters_size, training_command
from espnet_gmot.report.results import Result
from espnet_gmot.report.scored import Row
from espnet_gmot.report.statistics import mean_interval
from espnet_gmot.report.tables import FEWEST_BLOCKS, blocks_of, probability, resampled, with_error
from espnet_gmot.report.training_log import TrainingLog, read_training_log
from espnet_gmot.report.utterances import Counted

Scored = TypeVar("Scored", bound=Row | Counted)
#: What the marks of an error mean; a homophone is a substitution by a character of the same sound and tone.
KINDS = {"homophone": "homophone", "substitution": "instead", "deletion": "left out", "insertion": "added"}


@dataclass(frozen=True)
class Table:
    """A table: caption, column names, rows of cells; a row's first cell is its head."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Page:
    """Everything that a page shows.

    Attributes:
        title: of the page.
        exps: experiments by system, one for each seed.
        rows: their scored sets, by system.
        results: lines of a comparison's CSV, for means over seeds.
        counted: errors by utterance of the same, by system, where no experiments are at hand.
        couplings: what to draw of chosen utterances.
        command: the words that made the page.
        scores: alignments against true times.
        knowledge: what language models can tell of the errors.
        resamples: of the bootstrap.
        baseline: the system that the others are compared with, where a set has it; by default the first.
        blocks: what the bootstrap draws, ``speaker`` or ``utterance``; by default speakers where there are enough.
        sentences: utterances with errors to show for each set.
    """

    title: str
    exps: Mapping[str, Sequence[Path]]
    rows: Mapping[str, Sequence[Row]]
    results: Sequence[Result] = ()
    counted: Mapping[str, Sequence[Counted]] = field(default_factory=dict)
    couplings: Sequence[pictures.Coupling] = ()
    scores: Sequence[Score] = ()
    knowledge: Sequence[Knowledge] = ()
    command: Sequence[str] = ()
    resamples: int = 10_000
    baseline: str = ""
    blocks: str | None = None
    sentences: int = 20

    @property
    def base(self) -> str:
        """The baseline's name; empty where there is none."""
        return self.baseline or next(iter(self.scored), "")

    @property
    def scored(self) -> Mapping[str, Sequence[Row | Counted]]:
        """What rates and their differences are taken of: the experiments, or what a comparison's files have of them."""
        return self.rows or self.counted

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        with pictures.themed():
            write_text(path, self.render())

    def render(self) -> str:
        """The page as HTML.

        Raises:
            UserError: Jinja2 is missing.
        """
        try:
            from jinja2 import Environment, PackageLoader, StrictUndefined
        except ImportError as error:
            raise UserError("--html needs Jinja2: pip install 'espnet_gmot[report]'") from error
        environment = Environment(
            loader=PackageLoader("espnet_gmot.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        environment.filters["chinese"] = _chinese
        exps = dict(_named(self.exps))
        logs = {name: read_training_log(exp) for name, exp in exps.items()}
        learning = pictures.learning({name: logs[name] for name in logs if logs[name].epochs})
        apart = self._differences()  # first: it sees whether the sets are the same
        errors = self._errors()
        utterances = [pictures.utterance(coupling, f"u{index}") for index, coupling in enumerate(self.couplings)]
        sections = [("results", "Error rates")]
        sections += [("learning", "Learning")] if learning else []
        sections += [("times", "Times")] if self.scores else []
        sections += [("couplings", "Couplings"), ("edges", "Edges")] if utterances else []
        sections += [("knowledge", "What the teacher knows")] if self.knowledge else []
        sections += [("errors", "Errors")] if errors else []
        sections += [("resources", "Resources"), ("where", "What was run where")]
        return environment.get_template("page.html.j2").render(
            title=self.title,
            sections=sections,
            tables=self._tables(apart),
            apart=[pictures.apart(found, self.base, name) for name, found in apart.items() if found],
            single=self._single(),
            doses=pictures.doses(self.results),
            learning=learning,
            along=pictures.along(self.scores),
            scores=_scores(self.scores) if self.scores else None,
            utterances=utterances,
            knowledge=_knowledge(self.knowledge) if self.knowledge else None,
            errors=errors,
            homophones=self._homophones(),
            kinds=KINDS,
            resources=_resources(exps, logs) if exps else _spent(self.results),
            origins=[(name, origin(exp)) for name, exp in exps.items()] or _origins(self.results),
            commands=[(name, command) for name, exp in exps.items() if (command := training_command(exp))],
            made_with="; ".join(f"{name}: {value}" for name, value in here()),
            own_command=shlex.join(["python3", "-m", "espnet_gmot", *self.command]),
        )

    def _tables(self, apart: Mapping[str, Sequence[Difference]]) -> list[Table]:
        """Error rates: of the CSV, then of the experiments, with intervals and differences from the baseline."""
        tables = [_means(self.results)] if self.results else []
        rows = []
        for name, systems in _sets(self.scored).items():
            found = {each.system: each for each in apart.get(name, ())}
            for system, cells in systems.items():
                rate = sum(cell.rate for cell in cells) / len(cells)
                shown = marked(system, any(cell.late for cell in cells))
                row = [shown, name, str(len(cells)), _percent(rate), self._interval(cells), *_apart(found.get(system))]
                rows.append([*row, str(cells[0].size), f"{self._blocks(cells)}s"])
        if rows:
            head = [
                "system",
                "set",
                "trainings",
                "CER %",
                "95 % from … to",
                f"less {self.base}'s",
                "95 % from … to",
                "p",
                "p, seeds unpaired",
            ]
            caption = (
                "Intervals: other speakers (or sentences) and other seeds; p: how likely so large a difference from "
                f"{self.base} is by chance alone, trainings with the same seed in pairs; unpaired: as if they weren't."
            )
            notes = dict.fromkeys(each.note for found in apart.values() for each in found if each.note)
            caption = " ".join([caption, *notes])
            tables.append(
                Table(
                    _explained(caption, any(cell.late for each in self.scored.values() for cell in each)),
                    [*head, "characters", "resampled"],
                    rows,
                )
            )
        return tables

    def _single(self) -> str:
        """Which systems have one training; empty where none has."""
        names = [name for name, each in self.exps.items() if len(each) == 1]
        return "each system" if len(names) == len(self.exps) and names else ", ".join(names)

    def _interval(self, cells: Sequence[Row | Counted]) -> str:
        """A rate's interval; a handful of sentences has none."""
        if len(cells[0].lengths) < FEWEST_BLOCKS:
            return ""
        own = resampled(cells, self._blocks(cells), self.resamples)
        return f"{_percent(own.low)} to {_percent(own.high)}"

    def _blocks(self, cells: Sequence[Row | Counted]) -> str:
        return self.blocks or blocks_of(cells[0])

    def _differences(self) -> dict[str, list[Difference]]:
        """For each set that has the baseline and sentences enough, every other system's difference from it."""
        return {
            name: differences(systems, self.base, self.resamples, self.blocks)
            for name, systems in _sets(self.scored).items()
            if self.base in systems and len(systems[self.base][0].lengths) >= FEWEST_BLOCKS
        }

    def _homophones(self) -> Table:
        """How many errors, of all seeds together, are homophones."""
        rows = []
        for name, systems in _sets(self.rows).items():
            for system, cells in systems.items():
                marks = [mark for cell in cells for alignment in cell.alignments.values() for mark in _marks(alignment)]
                alike = marks.count("homophone")
                share = f"{100 * alike / len(marks):.0f} %" if marks else ""
                rows.append([system, name, str(alike), str(len(marks)), share])
        head = ["system", "set", "homophones", "errors", "share"]
        return Table("Errors that sound like the right character.", head, rows)

    def _errors(self) -> list[dict[str, Any]]:
        """Sentences in which the systems' first seeds differ or err, set by set."""
        groups = []
        for name, systems in _sets(self.rows).items():
            found = {system: cells[0].alignments for system, cells in systems.items()}
            references = next(iter(systems.values()))[0].references
            counts = {key: [len(_marks(each[key])) for each in found.values()] for key in references}
            wrong = [key for key in sorted(counts) if any(counts[key])]
            wrong.sort(key=lambda key: min(counts[key]) - max(counts[key]))
            if not wrong:
                continue
            shown = [
                {
                    "name": key,
                    "reference": written(references[key]),
                    "systems": [(system, list(_spelled(each[key]))) for system, each in found.items()],
                }
                for key in wrong[: self.sentences]
            ]
            label = f"{name}: {len(shown)} of {len(wrong)} sentences with errors, the most different first"
            groups.append({"name": label, "utterances": shown})
        return groups


def _chinese(text: str) -> bool:
    """Whether a text has Chinese characters, and no kana, which would make it Japanese."""
    return bool(re.search("[\u3400-\u9fff]", text)) and not re.search("[\u3040-\u30ff]", text)


def _sets(rows: Mapping[str, Sequence[Scored]]) -> dict[str, dict[str, list[Scored]]]:
    """For each set the systems that have it, and their rows, one for each seed."""
    sets: dict[str, dict[str, list[Scored]]] = {}
    for system, each in rows.items():
        for row in each:
            sets.setdefault(row.name, {}).setdefault(system, []).append(row)
    return sets


def _named(exps: Mapping[str, Sequence[Path]]) -> Iterator[tuple[str, Path]]:
    """Experiments with names that tell a system's seeds apart."""
    for system, each in exps.items():
        for index, exp in enumerate(each, 1):
            yield (system if len(each) == 1 else f"{system} {index}"), exp


def _marks(alignment: Sequence[Edit]) -> list[str]:
    """What is wrong in a sentence, error by error: keys of :data:`KINDS`."""
    return [_mark(edit) for edit in alignment if edit.kind != "correct"]


def _mark(edit: Edit) -> str:
    alike = edit.kind == "substitution" and similarity(edit.reference, edit.hypothesis) == TONED
    return "homophone" if alike else edit.kind


def _spelled(alignment: Sequence[Edit]) -> Iterator[tuple[str, str, str]]:
    """Mark, text and explanation of every token of a hypothesis, and of those that it lacks."""
    for edit in alignment:
        mark = _mark(edit)
        explanation = KINDS.get(mark, "") + (f" of {edit.reference}" if edit.reference and edit.hypothesis else "")
        yield mark, written([edit.hypothesis or edit.reference]), written([explanation])


def _apart(found: Difference | None) -> list[str]:
    """Four cells: a difference, its interval and p-values; empty for the baseline."""
    if found is None:
        return [""] * 4
    chance = (probability(value) for value in (found.p_value, found.unpaired))
    return [f"{found.value:+.2f}", f"{found.low:+.2f} to {found.high:+.2f}", *chance]


def _explained(caption: str, late: bool) -> str:
    """A caption that tells what an asterisk means, where there is one."""
    return f"{caption} {LATE}." if late else caption


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f}"


def _scores(scores: Sequence[Score]) -> Table:
    rows = []
    for s in scores:
        errors = [with_error(s.error_ms, s.error_se_ms, 0), f"{s.median_ms:.0f}", f"{s.path_ms:.0f}"]
        cells = [*errors, f"{100 * s.inside:.0f}", str(s.tokens)]
        lost = "" if s.without_mass < 0 else str(s.without_mass)
        rows.append([s.aligner, *cells, lost, f"{s.experiment} {s.model_file}"])
    head = [
        "coupling",
        "error ms",
        "median ms",
        "along the path ms",
        "inside %",
        "characters",
        "of these without mass",
        "of",
    ]
    caption = "Mean errors with their standard errors over utterances; plan is the coupling as trained."
    return Table(" ".join([caption, *left_out(scores)]), head, rows)


def _knowledge(found: Sequence[Knowledge]) -> Table:
    rows = [[each.teacher, each.system, each.set, *each.cells()] for each in found]
    return Table(
        "Right at so many of those asked; standard errors over utterances.", ["teacher", "system", "set", *HEAD], rows
    )


def _means(results: Sequence[Result]) -> Table:
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.set, result.system), []).append(result)
    rows = []
    for (name, system), cells in groups.items():
        mean, half = mean_interval([100 * cell.cer for cell in cells])
        interval = "" if np.isnan(half) else f"{mean - half:.2f} to {mean + half:.2f}"
        shown = marked(system, any(cell.late for cell in cells))
        rows.append([shown, name, str(len(cells)), f"{mean:.2f}", interval, str(cells[0].characters)])
    head = ["system", "set", "seeds", "CER %", "95 % from … to", "characters"]
    caption = _explained("Means over seeds, with t intervals.", any(result.late for result in results))
    return Table(caption, head, rows)


def _spent(results: Sequence[Result]) -> Table:
    """What a comparison's systems took: means over their seeds."""
    rows = []
    for system in dict.fromkeys(result.system for result in results):
        cells = {result.seed: result for result in results if result.system == system}.values()
        means = [sum(getattr(cell, name) for cell in cells) / len(cells) for name in ("epochs", "steps", "hours")]
        cpu = sum(cell.cpu_hours for cell in cells) / len(cells)
        largest = max(cell.max_rss_gb for cell in cells)
        rows.append([system, str(len(cells)), *(f"{mean:.4g}" for mean in means), f"{cpu:.2f}", f"{largest:.1f}"])
    head = ["system", "seeds", "epochs", "steps", "hours", "processor hours", "memory GB"]
    return Table(
        "Means over seeds: wall clock of the epochs, processor time of the calls; the largest process.", head, rows
    )


def _origins(results: Sequence[Result]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Where a comparison's systems were trained, as its first seeds say."""
    first: dict[str, Result] = {}
    for result in results:
        first.setdefault(result.system, result)
    names = ("date", "commit", "versions", "hardware", "config", "options", "teacher")
    return [
        (system, [(name, getattr(cell, name)) for name in names if getattr(cell, name)])
        for system, cell in first.items()
    ]


def _resources(exps: Mapping[str, Path], logs: Mapping[str, TrainingLog]) -> Table:
    rows = []
    for name, exp in exps.items():
        epochs, seconds = logs[name].epochs, logs[name].seconds
        steps, mean = (str(epochs[-1].steps), f"{seconds / len(epochs):.1f}") if epochs else ("", "")
        rows.append([name, str(len(epochs)), steps, f"{seconds / 3600:.2f}", mean, parameters_size(exp)])
    head = ["system", "epochs", "steps", "hours", "seconds an epoch", "parameters' file"]
    caption = "Wall clock of the finished epochs with their validation, whatever else the machine did meanwhile."
    return Table(caption, head, rows)
