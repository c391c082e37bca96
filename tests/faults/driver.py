"""Runs of ``python3 -m espnet_gmot`` that die where a test wants them to: ``driver.py RUNS.json OUTCOMES.json``.

A run is ``{"folder": …, "words": [the command line], "kill": "EVENT:N:PATTERN" or ""}``. Each has a process group of
its own, forked from this process, which has imported ESPnet once. All of the group is killed (SIGKILL) at the N-th
event that Python audits by that name in one of its processes and whose arguments, as they print, match the pattern; of
``open`` those for writing. An outcome is ``[status, the end of what was printed]``; the first that isn't as wanted is
the last.
"""

import json
import os
import re
import signal
import sys
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
    if run["kill"]:
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


if __name__ == "__main__":
    main(*sys.argv[1:])
