"""Commands run side by side, each with its share of the cores and GPUs; none outlives this process unseen."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_gmot.errors import UserError

_PATIENCE = 15.0  # seconds that a command gets to end by itself


@dataclass(frozen=True)
class Task:
    """A command.

    Attributes:
        name: for messages.
        command: its words.
        log: file that everything it prints is added to.
    """

    name: str
    command: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Usage:
    """What a command took: processor time in seconds and the largest process in GB, its children counted."""

    cpu_seconds: float
    max_rss_gb: float


def shares(jobs: int, cores: int, gpus: Sequence[str], ngpu: int) -> list[dict[str, str]]:
    """The environment of each of ``jobs`` commands: threads, and GPUs in turn.

    Args:
        jobs: commands at a time.
        cores: cores for all of them.
        gpus: names of the GPUs, as CUDA_VISIBLE_DEVICES takes them.
        ngpu: GPUs that each command wants.

    Raises:
        UserError: there are fewer GPUs than one command wants.
    """
    if ngpu > len(gpus):
        raise UserError(f"--ngpu {ngpu}: there are {len(gpus)} GPUs; give --ngpu 0 to train on the CPU")
    threads = str(max(1, cores // jobs))
    common = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    found = []
    for slot in range(jobs):
        mine = [gpus[(slot * ngpu + index) % len(gpus)] for index in range(ngpu)]
        found.append({**common, **({"CUDA_VISIBLE_DEVICES": ",".join(mine)} if mine else {})})
    return found


class SideBySide:
    """Runs tasks, as many at a time as there are environments.

    Args:
        environments: what each place adds to this process's environment, see :func:`shares`.
        keep: file descriptors that the commands inherit; a lock lives as long as any of them.
    """

    def __init__(self, environments: Sequence[dict[str, str]], keep: Sequence[int] = ()) -> None:
        self._environments, self._keep = list(environments), tuple(keep)
        self._running: dict[int, tuple[Task, int, subprocess.Popen]] = {}
        self._begun: dict[str, int] = {}  # length of a task's log when it started: what stands before is older

    def run(
        self,
        tasks: Sequence[Task],
        done: Callable[[Task, Usage], None],
        watch: Callable[[], None],
        *,
        seconds: float = 0.2,
    ) -> dict[str, str]:
        """Run all of them; one that fails doesn't stop the others.

        Args:
            tasks: in the order in which they start.
            done: told of each that succeeded, as it ends; its UserError makes it one that failed.
            watch: called about every ``seconds``.
            seconds: between two looks.

        Returns:
            For each task that failed, its name and why.
        """
        waiting, failures = list(tasks), {}
        free = list(range(len(self._environments)))
        try:
            while waiting or self._running:
                while waiting and free:
                    self._start(waiting.pop(0), free.pop(0))
                time.sleep(seconds)
                for pid in list(self._running):
                    ended, status, used = os.wait4(pid, os.WNOHANG)
                    if not ended:
                        continue
                    task, slot, process = self._running.pop(pid)
                    process.returncode = os.waitstatus_to_exitcode(status)
                    free.append(slot)
                    if process.returncode:
                        failures[task.name] = _reason(task.log, process.returncode, self._begun[task.name])
                    else:
                        try:  # ru_maxrss counts KiB
                            done(task, Usage(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9))
                        except UserError as error:
                            failures[task.name] = str(error)
                watch()
        finally:
            self._end()
        return failures

    def _start(self, task: Task, slot: int) -> None:
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with task.log.open("ab") as log:
            self._begun[task.name] = log.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                task.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environments[slot]},
                start_new_session=True,  # so that the whole of it can be ended
                pass_fds=self._keep,
            )
        self._running[process.pid] = (task, slot, process)

    def _end(self) -> None:
        """End what still runs, whole process groups, politely first."""
        for pid in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
        until = time.monotonic() + _PATIENCE
        for pid, (_, _, process) in self._running.items():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, until - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            process.wait()
        self._running.clear()


def _reason(log: Path, status: int, begin: int) -> str:
    """The first error at the end of a log, or its last line; nothing before byte ``begin`` counts."""
    with log.open("rb") as handle:
        handle.seek(begin)
        text = handle.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines[-50:] if re.search(r"\berror: ", line)]
    how = f"killed by signal {-status}" if status < 0 else f"status {status}"
    what = re.sub(r"^.*?error: ", "", told[0]) if told else (lines or ["it printed nothing"])[-1]
    return f"{what} ({how}; all of it: {log})"
