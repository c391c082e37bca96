"""A comparison's folder: its cells, what is known of each, and the guard of the test set.

``comparison.json`` in the work folder says which data it is about and when the test set was scored;
``exp/asr_SYSTEM_seedN/comparison.json`` says of each cell what it is and what was scored.
"""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_json
from espnet_gmot.gpus import card
from espnet_gmot.marks import digest_of
from espnet_gmot.recipe.side_by_side import Usage
from espnet_gmot.recipe.systems import System
from espnet_gmot.report.cells import NOTE, read_note
from espnet_gmot.report.results import Result
from espnet_gmot.report.scored import collect, decodings
from espnet_gmot.report.training_log import read_training_log
from espnet_gmot.version import commit, now


@dataclass(frozen=True)
class Cell:
    """One system with one seed.

    Attributes:
        system: what is trained.
        seed: ESPnet's ``--seed``.
        exp: its experiment's folder.
    """

    system: System
    seed: int
    exp: Path

    @property
    def name(self) -> str:
        """For readers."""
        return f"{self.system.name} seed {self.seed}"

    @property
    def tag(self) -> str:
        """ESPnet's asr_tag."""
        return self.exp.name.removeprefix("asr_")

    @property
    def note(self) -> dict[str, Any]:
        """What is known of it; empty before it begins."""
        return read_note(self.exp)

    def definition(self, common: str) -> str:
        """Digest of all that decides what is trained: the settings, the teacher's name, options of all cells."""
        settings = json.dumps(self.system.settings, sort_keys=True, default=str)
        return digest_of([settings, self.system.teacher or "", str(self.seed), common])

    def scored(self, name: str) -> bool:
        """Whether this set was scored."""
        return name in self.note.get("sets", {})


class Folder:
    """A comparison's work folder.

    Args:
        path: the folder.
        valid_set: the set that systems are tuned on.
        test_sets: sets that are scored once, at the end.
    """

    def __init__(self, path: Path, valid_set: str, test_sets: Sequence[str]) -> None:
        self.path, self.valid_set, self.test_sets = path, valid_set, list(test_sets)

    @property
    def note(self) -> dict[str, Any]:
        """What is known of the whole."""
        return read_note(self.path)

    @property
    def final(self) -> dict[str, Any] | None:
        """When and for which cells the test set was scored; None before."""
        return self.note.get("final")

    def remember(self, **facts: Any) -> None:
        """Add to what is known of the whole."""
        write_json(self.path / NOTE, {**self.note, **facts})

    def cell(self, system: System, seed: int) -> Cell:
        """A cell of this folder."""
        return Cell(system, seed, self.path / "exp" / f"asr_{system.slug}_seed{seed}")

    def notes(self) -> dict[Path, dict[str, Any]]:
        """What is known of every cell that was ever begun here, by experiment."""
        return {path.parent: read_note(path.parent) for path in sorted(self.path.glob(f"exp/asr_*/{NOTE}"))}

    def check(self, cell: Cell, common: str) -> None:
        """Check that what a cell's folder holds is this cell.

        Raises:
            UserError: it is something else.
        """
        note, name = cell.note, cell.system.name
        if note and note["definition"] != cell.definition(common):
            raise UserError(
                f"{cell.exp}: was trained with another configuration, teacher or options than {name} has now; "
                "give the system another name, or delete that folder"
            )
        if not note and (cell.exp / "config.yaml").is_file():
            raise UserError(
                f"{cell.exp}: holds an experiment that no comparison began; delete it, or use another --workdir"
            )

    def begin(self, cell: Cell, common: str, hardware: str) -> None:
        """Note that a cell is being trained from here on."""
        note, system = cell.note, cell.system
        commits = [*note.get("commits", []), commit()]
        write_json(
            cell.exp / NOTE,
            {
                "system": system.name,
                "seed": cell.seed,
                "config": system.config.name,
                "teacher": system.teacher or "",
                "options": ",".join(f"{key}={value}" for key, value in system.options),
                "definition": cell.definition(common),
                "sets": {},
                "cpu_seconds": 0.0,
                "max_rss_gb": 0.0,
                "after_final": self.final is not None,
                **note,
                "commits": list(dict.fromkeys(commits)),
                "versions": versions(),
                "hardware": hardware,
            },
        )

    def finish(self, cell: Cell, sets: Sequence[str], usage: Usage) -> None:
        """Note that sets of a cell were scored."""
        note = cell.note
        final = (self.final or {}).get("cells", [])
        for name in sets:
            late = note["after_final"] or (name in self.test_sets and cell.name not in final)
            phase = "after" if late else "final" if name in self.test_sets else "dev"
            note["sets"][name] = {"date": now(), "phase": phase, "decoding": _latest(cell.exp, name)}
        note["cpu_seconds"] += usage.cpu_seconds
        note["max_rss_gb"] = max(note["max_rss_gb"], usage.max_rss_gb)
        write_json(cell.exp / NOTE, note)

    def results(self) -> list[Result]:
        """A line for every scored set of every cell that was ever finished here.

        Raises:
            UserError: a set that was noted as scored lacks its files.
        """
        notes = self.notes()
        trials: dict[str, set[str]] = {}
        for note in notes.values():
            trials.setdefault(note["config"], set()).add(note["system"])
        found = []
        for exp, note in notes.items():
            log = read_training_log(exp)
            for name, scored in note["sets"].items():
                (row,) = collect(note["system"], exp, [name], scored.get("decoding"))
                counts = row.counts
                found.append(
                    Result(
                        system=note["system"], seed=note["seed"], set=row.name, utterances=counts.sentences,
                        characters=counts.tokens, errors=counts.errors, substitutions=counts.substitutions,
                        deletions=counts.deletions, insertions=counts.insertions, wrong=counts.wrong, cer=counts.rate,
                        counted_by=row.source.split()[0], config=note["config"], teacher=note["teacher"],
                        options=note["options"], trials=len(trials[note["config"]]), epochs=len(log.epochs),
                        steps=log.epochs[-1].steps if log.epochs else 0, hours=log.seconds / 3600,
                        cpu_hours=note["cpu_seconds"] / 3600, max_rss_gb=note["max_rss_gb"], phase=scored["phase"],
                        date=scored["date"], commit="+".join(note["commits"]), versions=note["versions"],
                        hardware=note["hardware"], experiment=str(exp.relative_to(self.path)),
                    )
                )  # fmt: skip
        return found

    def data_digest(self, sets: Sequence[str] = ("*",)) -> str:
        """Digest of the data: transcripts, and every utterance's number of frames, columns and tokens.

        What a teacher makes of the transcripts is no data: its stream is in the statistics only where the systems of a
        call all have one.

        Args:
            sets: folders of data/ whose transcripts count; all of them by default.
        """
        return _digest([path for name in sets for path in self.path.glob(f"data/{name}/text")] + self._shapes())

    def _shapes(self) -> list[Path]:
        found = self.path.glob("exp/asr_stats_*/*/*_shape*")
        return [path for path in found if path.name != "teacher_shape"]

    def check_data(self, train_set: str = "train") -> None:
        """Note which data this is about, and that it stays so.

        Each set has a digest of its own: sets that no call has named, and those that this one doesn't, don't count.

        Args:
            train_set: the training set's name, without the suffix of speed perturbation.

        Raises:
            UserError: cells were trained on other data.
        """
        names = dict.fromkeys([train_set, f"{train_set}_sp", self.valid_set, *self.test_sets])
        texts = {name: self.path / "data" / name / "text" for name in names}
        there = {f"data/{name}": _digest([path]) for name, path in texts.items() if path.is_file()}
        there["statistics"] = _digest(self._shapes())
        before = self.note.get("data") or {}
        if isinstance(before, str):  # one of all transcripts, in folders begun before each set had its own
            same = before in (self.data_digest(), self.data_digest(list(names)))
            before, other = {}, [] if same else ["transcripts or features"]
        else:
            other = [name for name in there if before.get(name, there[name]) != there[name]]
        if other and self.notes():
            raise UserError(
                f"{self.path}: its cells were trained on other data ({', '.join(other)}) than are there now; "
                "use another --workdir"
            )
        self.remember(data={**before, **there})

    def check_test_unseen(self) -> None:
        """Check that no test set was scored before its time.

        Raises:
            UserError: one was.
        """
        if self.final:
            return
        for exp in self.path.glob("exp/asr_*"):
            for name in self.test_sets:
                if seen := next(exp.glob(f"*/{name}/score_*/result.txt"), None):
                    raise UserError(
                        f"{seen}: {name} was scored before --final, so that tuning may know it; "
                        "move that experiment out of the folder, or use another --workdir"
                    )

    def check_before_training(self, unfinished: Sequence[Cell], after_final: bool) -> None:
        """Refuse to train once the test set is known.

        Raises:
            UserError: there are cells to train after ``--final``.
        """
        if self.final and unfinished and not after_final:
            raise UserError(
                f"--systems: {unfinished[0].name} is not trained, but {self.path} had its test set scored on "
                f"{self.final['date']}: use another --workdir, or --after_final, which marks such cells"
            )

    def check_before_test(self, cells: Sequence[Cell], unfinished: Sequence[Cell], after_final: bool) -> None:
        """Refuse to score the test set too early or for more than what was named the first time; else note it.

        Raises:
            UserError: cells are unfinished, or the test set was scored for others.
        """
        if unfinished:
            raise UserError(
                f"--final: {len(unfinished)} of {len(cells)} cells are unfinished (first: {unfinished[0].name}); "
                "train them first, without --final"
            )
        if self.final is None:
            names = [cell.name for cell in cells]
            self.remember(final={"date": now(), "commit": commit(), "sets": self.test_sets, "cells": names})
        elif self.final["sets"] != self.test_sets:
            raise UserError(
                f"--test_sets: the final sets of {self.path} are {' '.join(self.final['sets'])}; give these"
            )
        elif (new := [cell.name for cell in cells if cell.name not in self.final["cells"]]) and not after_final:
            raise UserError(
                f"--final: the test set was scored on {self.final['date']} without {new[0]}; --after_final scores it "
                "still, and marks it so"
            )


def _digest(files: Sequence[Path]) -> str:
    """Digest of the lines of tables, whatever their order."""
    lines = [
        line for path in sorted(files) for line in (path.name, *sorted(path.read_text(encoding="utf-8").splitlines()))
    ]
    return digest_of(lines)


def _latest(exp: Path, name: str) -> str:
    """The decoding in which a set was scored last; others may have been made by hand."""
    found = {tag: sets[name] for tag, sets in decodings(exp).items() if name in sets}
    if not found:
        raise UserError(f"{exp}: {name} was not scored; see comparison.log there")
    return max(found, key=lambda tag: (found[tag] / "hyp.trn").stat().st_mtime_ns)


def versions() -> str:
    """Versions of what computes."""
    found = []
    for name in ("espnet_gmot", "espnet", "torch", "numba", "transformers"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([f"python {platform.python_version()}", *found])


def hardware(gpus: bool = False) -> str:
    """Name of the processor, and with ``gpus`` of the first GPU, without commas."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = (names[0] if names else platform.processor() or platform.machine()).replace(",", " ")
    if gpus:
        name += f" with {card()}"
    return name
