"""Where results come from: when, with what and by which command an experiment was trained."""

import re
from pathlib import Path

from espnet_gmot.version import __version__, commit


def origin(exp: Path) -> list[tuple[str, str]]:
    """When, with what and where an experiment was trained: what its RESULTS.md and configuration say."""
    facts = [("experiment", str(exp))]
    results = exp / "RESULTS.md"
    if results.is_file():
        text = results.read_text(encoding="utf-8", errors="replace")
        facts += [(name, value) for name, value in re.findall(r"^ *- ([^:`]+): `([^`]+)`$", text, flags=re.MULTILINE)]
    return facts


def training_command(exp: Path) -> str:
    """The command that trained an experiment, as its log begins with it; empty if there is none."""
    log = exp / "train.log"
    if not log.is_file():
        return ""
    with log.open(encoding="utf-8", errors="replace") as lines:
        first = lines.readline().strip()
    return first.removeprefix("# ") if first.startswith("# ") else ""


def parameters_size(exp: Path) -> str:
    """Size of an experiment's parameters on disk, in words; empty before there are any."""
    files = [*sorted(exp.glob("*.ave.pth")), *sorted(exp.glob("*.best.pth")), *exp.glob("latest.pth")]
    return f"{files[0].stat().st_size / 1e6:.1f} MB" if files else ""


def here() -> list[tuple[str, str]]:
    """Version and commit of the code that makes the page."""
    code = commit()
    return [("espnet_gmot", __version__), *([("commit", code)] if code != "unknown" else [])]
