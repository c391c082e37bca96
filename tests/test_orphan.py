"""Killed runs leave no process behind that would train on into the same folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from espnet_gmot import launcher

STEP = """
import os, time
def steps(*_):
    with open("pid", "w") as file:
        file.write(str(os.getpid()))
    while True:
        time.sleep(0.1)
"""
FORK = """
import sys, work
from pathlib import Path
from espnet_gmot.recipe.jobs import Job, run_one
work.main = work.steps
run_one(Job("work", (), Path("log")), echo=lambda line: None)
"""
SPAWN = """
import multiprocessing, work
if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=work.steps).start()
"""
POOL = """
import os, time
def steps(items):
    with open("pid", "w") as file:
        file.write(str(os.getpid()))
    while True:
        time.sleep(0.1)
"""
POOLED = """
import work
from espnet_gmot.kaldi.parallel import in_chunks
if __name__ == "__main__":
    list(in_chunks(work.steps, {str(n): n for n in range(1000)}, 2, 1))
"""


def wait(true: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()


@pytest.mark.parametrize(
    ("script", "step"),
    [(FORK, STEP), (SPAWN, STEP), (POOLED, POOL)],
    ids=["the recipe's fork", "a spawned worker", "a fork server's worker"],
)
def test_a_worker_ends_with_its_killed_parent(tmp_path: Path, script: str, step: str) -> None:
    (tmp_path / "work.py").write_text(step)
    (tmp_path / "run.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": f"{Path(launcher.__file__).parents[1]}{os.pathsep}{tmp_path}"}
    parent = subprocess.Popen([sys.executable, "-m", "espnet_gmot", "run.py"], cwd=tmp_path, env=environment)
    pid = tmp_path / "pid"
    try:
        assert wait(lambda: pid.exists() and pid.read_text() != "")
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert wait(lambda: not Path(f"/proc/{pid.read_text()}").exists(), 10)
    finally:
        parent.kill()
        if pid.exists() and Path(f"/proc/{pid.read_text()}").exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)
