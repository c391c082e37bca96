"""The version, read by setup.cfg without importing torch, and the commit and time that results are noted with."""

import subprocess
from datetime import datetime, timezone
from pathlib import Path

__version__ = "0.1.0"


def commit() -> str:
    """Commit of this code, ``-dirty`` where files differ from it; ``unknown`` outside of a checkout."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, check=False)
    except OSError:
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed.returncode else "") if head.returncode == 0 else "unknown"


def now() -> str:
    """The time in UTC, as every table of results writes it."""
    return f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
