"""``compare``: systems × seeds on one corpus, through run.sh; resumable, side by side, the test set last and once."""

import argparse
import fcntl
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from espnet_gmot import gpus
from espnet_gmot.errors import UserError
from espnet_gmot.files import sha256, sweep, write_text, writing
from espnet_gmot.recipe.compare_options import parse
from espnet_gmot.recipe.comparison import Cell, Folder, hardware
from espnet_gmot.recipe.news import News, log
from espnet_gmot.recipe.side_by_side import SideBySide, Task, Usage, shares
from espnet_gmot.recipe.systems import System, check_budget, parse_systems, parse_teachers
from espnet_gmot.recipe.teacher import check_teacher
from espnet_gmot.report.cells import LATE, marked
from espnet_gmot.report.results import Result, write_results
from espnet_gmot.report.statistics import mean_interval
from espnet_gmot.report.tables import table

# options that decide where and how fast things run; what the data and the teachers are is checked by itself
_RESOURCES: tuple[str, ...] = (
    "nj",
    "inference_nj",
    "gpu_inference",
    "batch_size",
    "python",
    "espnet_root",
    "data",
    "data_url",
)
_RESOURCES += ("max_utts", "frontend_model", "frontend_layer", "frontend_opts", "teacher_opts")


class Comparison:
    """One call of the command.

    Args:
        args: its own options.
        others: run.sh's.
    """

    def __init__(self, args: argparse.Namespace, others: list[str]) -> None:
        self.args, self.others = args, others
        if args.jobs < 1 or args.cores < 1:
            raise UserError(f"--jobs {args.jobs}, --cores {args.cores}: must be at least 1")
        if not re.fullmatch(r"\d+( +\d+)*", args.seeds.strip()):
            raise UserError(f'--seeds {args.seeds!r}: give whole numbers, e.g. "0 1 2"')
        self.teachers = parse_teachers(args.teachers)
        systems = parse_systems(args.systems, list(self.teachers), args.config_prefix, args.recipe)
        self.systems = [_epochs(system, args.epochs) for system in systems]
        check_budget(self.systems, args.other_budget.split())
        if args.valid_set in args.test_sets.split():
            raise UserError(f"--test_sets: {args.valid_set} is the validation set, which is scored anyway")
        self.folder = Folder(Path(args.workdir), args.valid_set, args.test_sets.split())
        seeds = [int(seed) for seed in dict.fromkeys(args.seeds.split())]
        # seed by seed: a comparison that is cut short still has every system
        self.cells = [self.folder.cell(system, seed) for seed in seeds for system in self.systems]
        self.environments = shares(args.jobs, args.cores, gpus.visible() if args.ngpu else [], args.ngpu)
        self.threads = int(self.environments[0]["OMP_NUM_THREADS"])

    @cached_property
    def common(self) -> str:
        """Options that all cells share, as far as they decide what is trained or how it is scored."""
        words = [self.args.asr_args]
        for name, value in sorted(zip(self.others[::2], self.others[1::2], strict=True)):
            if name.removeprefix("--") not in _RESOURCES:
                words += [name, _content(value)]
        return "\0".join(words)

    def unfinished(self) -> list[Cell]:
        """Cells that are not trained and scored on the validation set."""
        return [cell for cell in self.cells if not cell.scored(self.args.valid_set)]

    def run(self) -> dict[str, str]:
        """Do what is left to do; returns the cells that failed and why."""
        with self._locked() as lock:
            self.folder.check_test_unseen()
            for cell in self.cells:
                self.folder.check(cell, self.common)
            unfinished = self.unfinished()
            if self.args.final:
                self.folder.check_before_test(self.cells, unfinished, self.args.after_final)
                failures = self._score_test(lock)
            else:
                self.folder.check_before_training(unfinished, self.args.after_final)
                failures = self._train(unfinished, lock) if unfinished else {}
            self._write()
        print(
            f"\n{self.table()}\n\n{self.folder.path}/results.csv has every number, comparison.txt this table",
            flush=True,
        )
        return failures

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the folder; what is left of a killed comparison holds it too, as long as it runs."""
        path = self.folder.path / "exp" / ".comparison.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                raise UserError(
                    f"--workdir {self.folder.path}: another comparison, or what a killed one left running, works there "
                    f"(begun by process {lock.read().strip() or '?'}): wait for it, or end it"
                ) from error
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            sweep(self.folder.path, below=False)  # the tables that a killed comparison was writing
            yield lock.fileno()

    # ---- the steps

    def _run_sh(self, *words: str) -> tuple[str, ...]:
        """A call of run.sh: ours, then the user's own options."""
        first = ["--workdir", str(self.folder.path), "--ngpu", str(self.args.ngpu), "--valid_set", self.args.valid_set]
        return ("bash", str(self.args.recipe / "run.sh"), *first, *self.others, *words)

    def _system(self, cell: Cell, seed: str | None = None) -> list[str]:
        """The options of run.sh that make a cell of it."""
        system = cell.system
        seed = f"--seed {cell.seed}" if seed is None else seed
        args = " ".join(word for word in (self.args.asr_args, system.asr_args, seed) if word)
        words = ["--asr_config", str(system.config), "--asr_tag", cell.tag, "--asr_args", args]
        if system.teacher and system.gmot:
            layers = [str(layer) for layer in system.gmot.layers]
            name = f"teacher_{system.teacher}" + ("" if layers == ["-1"] else "_" + "_".join(layers))
            words += ["--teacher", self.teachers[system.teacher], "--teacher_name", name]
        return words

    def _parts(self, count: int) -> list[str]:
        """How many parts the stages with parts have, unless the user says so."""
        return [word for name in ("--nj", "--inference_nj") if name not in self.others for word in (name, str(count))]

    def _train(self, unfinished: list[Cell], lock: int) -> dict[str, str]:
        for name in sorted({cell.system.teacher for cell in unfinished if cell.system.teacher}):
            check_teacher(self.teachers[name])
        self._prepare(unfinished, lock)
        tasks, cells = [], {}
        for cell in unfinished:
            stages = [
                "--stage",
                "11",
                "--stop_stage",
                "13",
                "--test_sets",
                self.args.valid_set,
                *self._parts(self.threads),
            ]
            command = self._run_sh(*stages, *self._system(cell))
            tasks.append(Task(cell.name, command, cell.exp / "comparison.log"))
            cells[cell.name] = cell
            self.folder.begin(cell, self.common, f"{hardware(bool(self.args.ngpu))}, {self.threads} threads")
        ready = len(self.cells) - len(tasks)
        log(f"{ready} of {len(self.cells)} cells are there; {len(tasks)} to train, {self.args.jobs} at a time")
        news = News(self.cells, unfinished, self.args.jobs)

        def done(task: Task, usage: Usage) -> None:
            """What follows a training: its CER is written down and told."""
            self.folder.finish(cells[task.name], [self.args.valid_set], usage)
            results = self._write()
            mine = next(r for r in results if r.experiment.endswith(f"/{cells[task.name].exp.name}"))
            log(f"{task.name}: CER {100 * mine.cer:.2f} % on {mine.set} after {mine.epochs} epochs")
            news.finished(cells[task.name])

        return SideBySide(self.environments, [lock]).run(tasks, done, news)

    def _prepare(self, unfinished: list[Cell], lock: int) -> None:
        """Stages 1-10 once, and every teacher's features."""
        sets = " ".join([self.args.valid_set, *self.folder.test_sets])
        stock = next((cell for cell in self.cells if not cell.system.teacher), self.cells[0])
        words = self._system(stock, seed="")  # the same in every call: statistics know no seed
        stages = [
            "--stage",
            str(self.args.stage),
            "--stop_stage",
            "10",
            "--look_to",  # what the cells need, too
            "13",
            "--test_sets",
            sets,
            *self._parts(self.args.cores),
        ]
        tasks = []
        if self.args.stage <= 10:
            tasks.append(Task("data", self._run_sh(*stages, *words), self.folder.path / "exp/comparison_data.log"))
        seen = set()
        for cell in unfinished:
            words = self._system(cell)
            teacher = tuple(words[words.index("--teacher") :]) if "--teacher" in words else ()
            if teacher and teacher not in seen:
                seen.add(teacher)
                # no stage of the engine: run.sh makes the teacher's features before it
                stages = ["--stage", "11", "--stop_stage", "10", "--test_sets", self.args.valid_set]
                log_file = self.folder.path / f"exp/comparison_{teacher[3]}.log"
                tasks.append(Task(teacher[3], self._run_sh(*stages, *words), log_file))
        whole = shares(1, self.args.cores, gpus.visible() if self.args.ngpu else [], self.args.ngpu)
        for task in tasks:
            log(f"{task.name}: {task.log}")
            if failures := SideBySide(whole, [lock]).run([task], lambda *_: None, lambda: None):
                raise UserError(f"{task.name}: {failures[task.name]}")
        given = dict(zip(self.others[::2], self.others[1::2], strict=True))
        self.folder.check_data(given.get("--train_set", "train"))

    def _score_test(self, lock: int) -> dict[str, str]:
        sets = self.folder.test_sets
        todo = {cell.name: cell for cell in self.cells if not all(cell.scored(name) for name in sets)}
        tasks = []
        for cell in todo.values():
            stages = ["--stage", "12", "--stop_stage", "13", "--test_sets", " ".join(sets), *self._parts(self.threads)]
            tasks.append(Task(cell.name, self._run_sh(*stages, *self._system(cell)), cell.exp / "comparison.log"))
        log(f"--final: scoring {' and '.join(sets)} of {len(tasks)} cells")

        def done(task: Task, usage: Usage) -> None:
            """What follows a scoring: the results are written down."""
            self.folder.finish(todo[task.name], sets, usage)
            self._write()
            log(f"{task.name}: scored")

        return SideBySide(self.environments, [lock]).run(tasks, done, lambda: None)

    # ---- what comes out

    def _write(self) -> list[Result]:
        results = self.folder.results()
        write_results(self.folder.path / "results.csv", results)
        write_text(self.folder.path / "comparison.txt", self.table(results) + "\n")
        return results

    def table(self, results: Sequence[Result] | None = None) -> str:
        """CER of the systems of this call: mean over the seeds that are there, with its 95 % interval.

        An asterisk marks systems with a cell that was trained or scored after ``--final``. ``tried`` counts the systems
        of the same configuration in the folder, whether they are reported or not.
        """
        results = self.folder.results() if results is None else results
        known = [name for name in (self.args.valid_set, *self.folder.test_sets) if any(r.set == name for r in results)]
        sets = known or [self.args.valid_set]
        body, late = [], False
        for system in self.systems:
            names = [cell.exp.name for cell in self.cells if cell.system is system]
            mine = [result for result in results if Path(result.experiment).name in names]
            hours = list({result.experiment: result.hours for result in mine}.values())
            cells = []
            for name in sets:
                rates = [100 * result.cer for result in mine if result.set == name]
                mean, half = mean_interval(rates)
                cells.append("…" if not rates else f"{mean:.2f}" + (f" ± {half:.2f}" if len(rates) > 1 else ""))
            tried = str(mine[0].trials) if mine else "…"
            pace = f"{sum(hours) / len(hours):.2f}" if hours else "…"
            after = any(result.late for result in mine)
            late |= after
            body.append((marked(system.name, after), f"{len(hours)}/{len(names)}", *cells, pace, tried))
        head = ("system", "cells", *(f"CER % {name}" for name in sets), "h/cell", "tried")
        found = table(head, body, range(1, len(head)))
        return f"{found}\n{LATE}" if late else found


def _content(value: str) -> str:
    """An option's value; of a file, what it holds, or its digest where that is no text, as of a model's parameters."""
    if not os.path.isfile(value):  # of any words, however long: Path.is_file raises where they can't be a name
        return value
    try:
        return Path(value).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return sha256(Path(value)).hex()


def _epochs(system: System, epochs: int | None) -> System:
    if epochs is None:
        return system
    if epochs < 1:
        raise UserError(f"--epochs {epochs}: must be at least 1")
    kept = tuple(option for option in system.options if option[0] != "max_epoch")
    settings = {**system.settings, "max_epoch": epochs}
    return replace(system, options=(*kept, ("max_epoch", str(epochs))), settings=settings)


def main(argv: list[str] | None = None) -> int:
    """Run the command; raises UserError on bad options, or after the rest when a cell failed."""
    args, others = parse(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by an exception, so that the cells are ended too
    try:
        with writing():
            failures = Comparison(args, others).run()
    except KeyboardInterrupt:
        log("interrupted; the same command continues")
        return 130
    if failures:
        name, reason = next(iter(failures.items()))
        raise UserError(f"{len(failures)} cells failed, the first: {name}: {reason}; the same command tries again")
    return 0
