"""What is known of an experiment beside its scores: its seed, and whether it was trained with the test set known."""

import json
import re
from pathlib import Path
from typing import Any

from espnet_gmot.errors import UserError

#: The file in which a comparison notes what it knows of itself, and of each cell.
NOTE = "comparison.json"
#: What an asterisk behind a system's name means.
LATE = "* trained or scored after --final, when the test set was known already"


def read_note(folder: Path) -> dict[str, Any]:
    """What a comparison noted in a folder, its own or a cell's; empty where it noted nothing.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / NOTE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(f"{path}: no valid JSON ({error}); restore it, or delete the folder it stands in") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no JSON object; restore it, or delete the folder it stands in")
    return found


def seed_of(exp: Path) -> int | None:
    """An experiment's seed, from its comparison's note or its config.yaml; None where neither tells."""
    if (seed := read_note(exp).get("seed")) is not None:
        return int(seed)
    try:
        text = (exp / "config.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^seed: *(\d+) *$", text, re.MULTILINE)  # a whole YAML reader would take seconds for its tokens
    return int(found[1]) if found else None


def late(exp: Path, name: str) -> bool:
    """Whether a comparison noted that a set was scored, or its system trained, after the test set was known."""
    return read_note(exp).get("sets", {}).get(name, {}).get("phase") == "after"


def marked(system: str, after: bool) -> str:
    """A system's name for readers, with an asterisk if it came too late; see :data:`LATE`."""
    return f"{system}*" if after else system
