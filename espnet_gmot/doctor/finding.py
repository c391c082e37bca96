"""One line of the doctor's report."""

import importlib.metadata
from dataclasses import dataclass

REQUIRED, OPTIONAL = "missing", "absent"
PIP = "python3 -m pip install"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        name: what was looked at.
        detail: what was found, or what it would be good for.
        status: ``ok``, ``missing`` (needed) or ``absent`` (works without).
        mend: the command that mends it; empty where all is well.
    """

    name: str
    detail: str
    status: str = "ok"
    mend: str = ""


def requires(name: str) -> list[str]:
    """A distribution's requirements without those of its extras; none where it isn't installed."""
    try:
        return [word for word in importlib.metadata.requires(name) or () if "extra" not in word]
    except importlib.metadata.PackageNotFoundError:
        return []


def version(name: str) -> str | None:
    """A distribution's version, None where it isn't installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
