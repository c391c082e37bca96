"""Runs of ``python3 -m espnet_gmot`` that die where a test wants them to: ``driver.py RUNS.json OUTCOMES.json``.

A run is ``{"folder": …, "words": [the command line], "kill": "EVENT:N:PATTERN" or ""}``. Each is forked from this
process, which has imported ESPnet once; a command line that begins with a script's path runs the script. The run and
all that it started are killed (SIGKILL) at the N-th event that Python audits by that name in one of the forks and whose
arguments, as they print, match the pattern; of ``open`` those for writing. The event ``exists`` is looked for from
outside, whatever programs run: N files (now) match the pattern, a glob, that were not there when the run began. An
outcome is ``[status, the end of what was printed]``; the first that isn't as wanted is the last.
"""

import contextlib
import json
import os
import re
import signal
import sys
import time
import traceback
from pathlib import Path

from espnet_gmot import launcher
from espnet_gmot.recipe.jobs import preload


def main(runs: str, outcomes: str) -> None:
    """Run all, in order."""
    preload("espnet2.bin.asr_train", "espnet2.bin.asr_inference")
    import transformers  # noqa: F401

    found = []
    for number, run in enumerate(json.loads(Path(runs).read_text())):
        log = Path(outcomes).with_name(f"run.{number}.log")
        child = os.fork()
        if child == 0:
            _run(run, log)
        if run["kill"].startswith("exists:"):
            _kill_when(child, Path(run["folder"]), *run["kill"].split(":")[1:])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found.append([status, log.read_text(errors="replace")[-3000:]])
        Path(outcomes).write_text(json.dumps(found))
        if status != (-signal.SIGKILL if run["kill"] else 0):
            break


def _run(run: dict, log: Path) -> None:
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.chdir(run["folder"])
    if run["words"][0].endswith(".sh"):
        os.execv(run["words"][0], run["words"])  # noqa: S606
    if run["kill"] and not run["kill"].startswith("exists:"):
        _arm(*run["kill"].split(":", 2))
    status = 1
    try:
        status = launcher.main(run["words"])
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _arm(event: str, number: str, pattern: str) -> None:
    matches, seen = re.compile(pattern).search, []

    def watch(name: str, args: tuple) -> None:
        if name == event and matches(repr(args)) and (name != "open" or "w" in str(args[1])):
            seen.append(name)
            if len(seen) == int(number):
                os.killpg(os.getpgrp(), signal.SIGKILL)

    sys.addaudithook(watch)


def _kill_when(child: int, folder: Path, number: str, pattern: str) -> None:
    """Watch a folder until enough new files match, or the run has ended; then kill its processes, the parents first."""
    before = set(folder.glob(pattern))
    while len(set(folder.glob(pattern)) - before) < int(number):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.002)
    for process in family(child):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def family(process: int) -> list[int]:
    """A process and what it started, stopped one by one so that none gets away."""
    found, seen = [process], 0
    while seen < len(found):
        try:
            os.kill(found[seen], signal.SIGSTOP)
            children = (Path("/proc") / str(found[seen])).glob("task/*/children")
            found += [int(word) for path in children for word in path.read_text().split()]
        except (ProcessLookupError, FileNotFoundError):
            pass
        seen += 1
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
