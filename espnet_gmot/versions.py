"""The versions that the package works with: what is refused at start, and what ``doctor`` says of those it finds."""

import importlib.metadata
import platform
import re
from dataclasses import dataclass

from espnet_gmot.errors import UserError


@dataclass(frozen=True)
class Supported:
    """What is known of a package's versions.

    Attributes:
        lowest: older ones are refused.
        tried: those of `make env`, and those of a row of docs/espnet_lines.md that ran nothing but passing tests.
        broken: single versions that are known not to work.
    """

    lowest: str
    tried: tuple[str, ...]
    broken: tuple[str, ...] = ()


SUPPORTED = {
    "python": Supported("3.10", ("3.10", "3.11", "3.12", "3.13")),
    "torch": Supported("2.1.2", ("2.1.2", "2.13.0", "2.14.1")),
    "numpy": Supported("1.22", ("1.23.5", "2.2.6", "2.4.6", "2.5.5")),
    "numba": Supported("0.57", ("0.58.1", "0.68.1")),
    "transformers": Supported("4.30", ("4.30.2", "4.36.2", "4.41.2", "4.46.3", "4.49.0", "5.23.0", "5.24.0")),
    "kaldiio": Supported("2.18.1", ("2.18.1",)),
    "espnet": Supported("202301", ("202301", "202308", "202402", "202412", "202511", "202611")),
}
"""python and distributions; the lower bounds are setup.cfg's."""


def key(version: str) -> tuple[int, ...]:
    """A version's leading numbers, for comparisons: ``2.13.0+cpu`` → (2, 13, 0)."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()


def refused(name: str, version: str) -> bool:
    """Whether a version is known not to work."""
    known = SUPPORTED[name]
    return key(version) < key(known.lowest) or key(version) in map(key, known.broken)


def verdict(name: str, version: str) -> str:
    """What is known of a version, in a few words.

    Args:
        name: a key of :data:`SUPPORTED`.
        version: as installed.
    """
    known = SUPPORTED[name]
    if refused(name, version):
        return f"known not to work: needs {known.lowest} or newer"
    # the interpreter's third number and torch's build do not matter
    depth = 2 if name == "python" else 3
    if key(version)[:depth] in (key(other)[:depth] for other in known.tried):
        return "tried"
    return f"likely to work (tried: {', '.join(known.tried)})"


def installed() -> dict[str, str]:
    """The versions that are here of what :data:`SUPPORTED` names, without importing any."""
    found = {"python": platform.python_version()}
    for name in SUPPORTED.keys() - found.keys():
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def mend(name: str) -> str:
    """The command that gets a version that works."""
    lowest = SUPPORTED[name].lowest
    return f"install Python {lowest} or newer" if name == "python" else f"python3 -m pip install '{name}>={lowest}'"


def check() -> None:
    """Refuse what is known not to work, before a library fails in its depth.

    Raises:
        UserError: naming the package, its version, those that work and the command.
    """
    for name, version in sorted(installed().items()):
        if refused(name, version):
            raise UserError(f"{name} {version}: {verdict(name, version)}: {mend(name)}")
