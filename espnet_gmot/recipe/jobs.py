"""ESPnet's own programs, run in forked copies of this process so that ESPnet is imported once.

The parent imports ESPnet (about 12 s) and does nothing else with it; every program runs in a fork of its own, with its
own log file, threads, logging set-up and exit status, as it would under asr.sh. A program that uses a GPU runs in a
new interpreter instead, which imports ESPnet anew: CUDA doesn't survive a fork.
"""

import contextlib
import importlib
import importlib.metadata
import io
import logging
import multiprocessing
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from tqdm import tqdm

from espnet_gmot.errors import UserError
from espnet_gmot.files import disk_full
from espnet_gmot.gpus import visible
from espnet_gmot.hosts.entry import instead
from espnet_gmot.kaldi.ark import noted_features
from espnet_gmot.kaldi.parallel import cores
from espnet_gmot.marks import digest_of, is_complete, made_by, renew, set_complete
from espnet_gmot.orphan import end_with
from espnet_gmot.version import __version__

_ERROR = "espnet_gmot: error: "
_RAISED = f"{UserError.__module__}.{UserError.__name__}: "  # the end of a traceback, from a worker that ESPnet spawned
_SAID = re.compile(r"[\w.]+(Error|Exception): ")
_CONSOLE_SECONDS = 10.0  # at most one progress line of training in this time


@dataclass(frozen=True)
class Job:
    """One run of an ESPnet program.

    Attributes:
        module: e.g. ``espnet2.bin.asr_train``; must define ``main(cmd)``.
        argv: its options.
        log: file that receives everything it prints.
    """

    module: str
    argv: tuple[str, ...]
    log: Path

    @property
    def ngpu(self) -> int:
        """Number of GPUs that it asks for."""
        return asked_gpus(self.argv)

    def fingerprint(self) -> str:
        """Hash of the command and of every existing file that it names.

        Where tables among them list features, what these are follows as a word of its own: see
        :func:`espnet_gmot.marks.is_complete`.
        """
        words = [field for word in self.argv for field in (word, *word.split(",")[:1], *word.split("=")[1:])]
        files = sorted({word for word in words if os.path.isfile(word)})
        command = digest_of((self.module, *self.argv), files, contents=True)
        tables = {path: noted for path in files if path.endswith(".scp") and (noted := noted_features(path))}
        return f"{command} {digest_of(f'{path} {noted}' for path, noted in tables.items())}" if tables else command


def asked_gpus(argv: Sequence[str]) -> int:
    """Number of GPUs that an ESPnet program with these options asks for: its last ``--ngpu``."""
    asked = "0"
    for before, word in pairwise(("", *argv)):
        if before == "--ngpu" or word.startswith("--ngpu="):
            asked = word.removeprefix("--ngpu=")
    return int(asked) if asked.isdecimal() else 0


def versions() -> str:
    """What runs ESPnet's programs here; results of other versions are made again, but no training is thrown away."""
    try:
        espnet = importlib.metadata.version("espnet")
    except importlib.metadata.PackageNotFoundError:
        espnet = "of a checkout"
    return f"espnet_gmot {__version__}, espnet {espnet}"


def sensible_parts(wanted: int, processes: int | None = None) -> int:
    """Number of parts for ESPnet programs: as asked, but no more than four a process (each part loads a model).

    Args:
        wanted: as asked.
        processes: at a time; None: one a core.
    """
    return max(1, min(wanted, 4 * (processes or cores())))


def check_gpus(wanted: int) -> None:
    """Check that torch sees as many GPUs.

    Raises:
        UserError: it doesn't.
    """
    import torch

    if wanted > (seen := torch.cuda.device_count()):
        raise UserError(f"--ngpu {wanted}: torch sees {seen} GPUs; give --ngpu {seen or '0 to train on the CPU'}")


def preload(*modules: str) -> None:
    """Import ESPnet programs with the plugin registered, once for all the forks to come.

    ESPnet asks for CUDA while it is imported: it is told that there is none, for a process that has asked, or even
    begun to use a GPU, can't hand that to forks, where all that asks again would fail.
    """
    wanted = [module for module in modules if module not in sys.modules]
    if not wanted:
        return
    import torch

    is_available, torch.cuda.is_available = torch.cuda.is_available, lambda: False
    try:
        _import(wanted)
    finally:
        torch.cuda.is_available = is_available


def _import(wanted: Sequence[str]) -> None:
    from espnet_gmot.hosts.register import register

    start = time.perf_counter()
    print("importing ESPnet …", end=" ", flush=True)
    register()
    # ESPnet's optional parts complain while they load: about a missing flash_attn, old APIs, nltk data they can't fetch
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in wanted:
            importlib.import_module(module)
    print(f"{time.perf_counter() - start:.0f} s", flush=True)


def refused_words(module: str, words: Sequence[str]) -> str | None:
    """What an ESPnet program's own parser has against options; None if it takes them. ESPnet is imported for it.

    Args:
        module: e.g. ``espnet2.bin.asr_train``; must define ``get_parser()``.
        words: the options.
    """
    preload(module)
    parser = sys.modules[module].get_parser()

    def refuse(message: str) -> None:
        """In place of argparse's, which prints the usage and ends the program."""
        raise UserError(" ".join(message.split()))

    parser.error = refuse
    try:
        parser.parse_args(list(words))
    except UserError as error:
        return str(error)
    except Exception as error:  # actions of ESPnet's evaluate their values
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def run_parts(
    jobs: Sequence[Job],
    folders: Sequence[Path],
    *,
    processes: int,
    unit: str,
    marker: str | None = None,
    sizes: Sequence[int] = (),
) -> bool:
    """Run the jobs whose output folder isn't marked as complete by these versions; mark each folder as its job ends.

    Args:
        jobs: what to run.
        folders: output folder of each job.
        processes: how many at a time; of jobs on a GPU, one for each GPU.
        unit: name of a unit of progress.
        marker: text that each unit of progress leaves once in a job's log; None counts finished jobs.
        sizes: number of units of each job; needed with ``marker``.

    Returns:
        False if everything was there already.

    Raises:
        UserError: a job failed; names its log and the error.
    """
    marks = {job: job.fingerprint() for job in jobs}
    places = dict(zip(jobs, folders, strict=True))
    there = {job: made_by(places[job]) for job in jobs if is_complete(places[job], marks[job])}
    now = versions()
    todo = [job for job in jobs if there.get(job) != now]
    if stale := sorted({old for old in there.values() if old != now}):
        print(f"parts by {', '.join(stale)} are there, but {now} is installed: made again", flush=True)
    if len(todo) < len(jobs):
        print(f"{len(jobs) - len(todo)} of {len(jobs)} parts are there already", flush=True)
    for job in there.keys() - set(todo):
        renew(places[job], marks[job])
    if todo:
        total = sum(size for job, size in zip(jobs, sizes, strict=True) if job in todo) if marker else len(todo)
        preload(*{job.module for job in todo if not job.ngpu})
        _run_all(todo, lambda job: set_complete(places[job], marks[job], now), processes, unit, marker, total)
    return bool(todo)


def _run_all(
    jobs: Sequence[Job],
    finished: Callable[[Job], None],
    processes: int,
    unit: str,
    marker: str | None,
    total: int,
) -> None:
    """Run jobs, at most ``processes`` at a time, with a progress bar; the first failure stops the rest."""
    waiting = list(jobs)
    running: dict[Job, tuple[BaseProcess, int]] = {}
    free = list(range(max(1, processes)))
    seen = {job: _Counter(job.log, marker) for job in jobs}
    with tqdm(total=total, unit=unit, mininterval=1.0) as bar:
        try:
            while waiting or running:
                while waiting and free:
                    job, place = waiting.pop(0), free.pop(0)
                    job.log.parent.mkdir(parents=True, exist_ok=True)
                    with job.log.open("wb") as log, Connection(os.dup(log.fileno()), readable=False) as output:
                        running[job] = _start(job, output, place if job.ngpu else None, threads=1), place
                time.sleep(0.05)
                for job, (process, place) in list(running.items()):
                    if marker:
                        bar.update(seen[job].news())
                    if process.exitcode is None:
                        continue
                    del running[job]
                    free.append(place)
                    if process.exitcode:
                        raise _failure(job, process.exitcode)
                    finished(job)
                    bar.update(seen[job].news() if marker else 1)
        finally:
            for process, _ in running.values():
                process.terminate()
                process.join()


def run_one(job: Job, *, echo: Callable[[str], str | None]) -> None:
    """Run one job; write all it prints to its log, and what ``echo`` makes of each line to the console.

    Raises:
        UserError: it failed; names its log and the error.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    rotate(job.log)
    reading, writing = os.pipe()
    with Connection(writing, readable=False) as output:
        process = _start(job, output, None, threads=int(os.environ.get("OMP_NUM_THREADS") or cores()))
    try:
        with (
            os.fdopen(reading, encoding="utf-8", errors="replace") as lines,
            job.log.open("w", encoding="utf-8") as log,
        ):
            log.write(f"# python3 -m espnet_gmot -m {job.module} {shlex.join(job.argv)}\n")
            for line in lines:
                log.write(line)
                log.flush()
                shown = echo(line.rstrip("\n"))
                if shown:
                    print(shown, flush=True)
        process.join()
    except BaseException:
        process.terminate()
        process.join()
        raise
    if process.exitcode:
        raise _failure(job, process.exitcode)


def rotate(path: Path) -> None:
    """Keep earlier logs: train.log becomes train.1.log, that one train.2.log, as ESPnet's launcher does."""
    number = 1
    while path.with_name(f"{path.stem}.{number}{path.suffix}").exists():
        number += 1
    while number > 0 and path.exists():
        older = path.with_name(f"{path.stem}.{number - 1}{path.suffix}") if number > 1 else path
        os.replace(older, path.with_name(f"{path.stem}.{number}{path.suffix}"))
        number -= 1


class TrainingEcho:
    """Chooses the lines of ESPnet's training log that a reader at the console wants."""

    _PREFIX = re.compile(r"^\[[^\]]*\] (\S+ \S+) \((\w+):\d+\) (\w+): ")

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, line: str) -> str | None:
        """The line without its prefix, or None to keep it off the console."""
        found = self._PREFIX.match(line)
        if not found:
            return None
        text = line[found.end() :]
        if text.startswith("gmot: utterance "):  # a warning by the first process of several, errors by the others
            return None
        told = ("epoch results:", "Estimated time", "already reached at max_epoch")
        if found[3] in ("ERROR", "CRITICAL") or any(words in text for words in told):
            return text
        if re.match(r"\d+epoch:train:", text) and time.monotonic() - self._last > _CONSOLE_SECONDS:
            self._last = time.monotonic()
            return text
        return None


class _Counter:
    """Counts a marker in a growing log."""

    def __init__(self, path: Path, marker: str | None) -> None:
        self._path, self._marker, self._place = path, (marker or "").encode(), 0

    def news(self) -> int:
        """How often the marker has come in whole lines since the last call."""
        with self._path.open("rb") as log:
            log.seek(self._place)
            text = log.read()
        text = text[: text.rfind(b"\n") + 1]
        self._place += len(text)
        return text.count(self._marker)


def _start(job: Job, output: Connection, gpu: int | None, threads: int) -> BaseProcess:
    if not job.ngpu:
        preload(job.module)
    sys.stdout.flush()
    sys.stderr.flush()
    fork, spawn = multiprocessing.get_context("fork").Process, multiprocessing.get_context("spawn").Process
    process = (spawn if job.ngpu else fork)(target=_child, args=(job, output, gpu, threads))
    process.start()
    return process


def _child(job: Job, output: Connection, gpu: int | None, threads: int) -> None:
    """Run a job in this process.

    Args:
        job: what to run.
        output: receives all that it prints.
        gpu: the only GPU that it may use, as an index into the visible ones; None leaves it all that it asks for.
        threads: of torch.
    """
    if (parent := multiprocessing.parent_process()) is not None and parent.pid is not None:
        end_with(parent.pid)  # not os.getppid(): that one may be gone before a new interpreter has begun
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.argv = [job.module, *job.argv]
    if not job.ngpu:  # as on a machine without: mixed precision, say, would use a GPU that it sees
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible()[gpu]
    if job.module not in sys.modules:
        _import([job.module])
    logging.getLogger().handlers.clear()
    import torch

    torch.set_num_threads(threads)
    try:
        check_gpus(job.ngpu)
        if not instead(job.module, job.argv):
            sys.modules[job.module].main(list(job.argv))
    except Exception as error:
        told = error if isinstance(error, UserError) else disk_full(error)
        if told is None:
            raise
        print(f"{_ERROR}{told}", file=sys.stderr)
        sys.exit(1)


def _failure(job: Job, status: int) -> UserError:
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in reversed(lines):
        for start in (_ERROR, _RAISED):
            if line.startswith(start):
                return UserError(line.removeprefix(start))
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    if "terminated with exit code" in last:  # one of several GPUs' processes: what it said itself is above
        last = next((line for line in reversed(lines) if _SAID.match(line) and line != last), last)
    how = f"was killed by signal {-status}" if status < 0 else "failed"
    return UserError(f"{job.module.rpartition('.')[2]} {how}: {last} (all of it: {job.log})")
