"""Where figures come from: what every benchmark writes beside them."""

import datetime
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, str | float]:
    """Date, commit (``+`` where the code differs from it), machine, versions, and the load before the run."""
    import torch

    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2),
    }


def _commit() -> str:
    code = ["espnet_gmot", "benchmarks", "conf"]  # not docs/, where benchmarks write
    try:
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", *code)
        return _git("describe", "--always", "--exclude=*") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # no checkout


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def _processor() -> str:
    """The processor's name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
