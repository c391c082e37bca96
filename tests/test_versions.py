"""The versions that the package works with: what it says of them, and that the code keeps to it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_code_keeps_to_the_oldest_python() -> None:
    """No name of a standard library that Python 3.10 lacks; its syntax is ruff's to check (target-version)."""
    command = [sys.executable, "-c", "import vermin; vermin.main()", "-t=3.10-", "--violations", "--no-tips", "-q"]
    done = subprocess.run([*command, "espnet_gmot", "tests", "examples"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
