"""Where relative paths hold: in the folder of the recipe that wrote them, which needn't be the working directory."""

from collections.abc import Iterable
from pathlib import Path

RECIPE = "cd to the recipe's folder, which holds exp/ and dump/"
"""What helps where no folder does."""


def roots(place: Path) -> list[Path]:
    """Folders that may be meant: those above an experiment or a table, the nearest first, then the working directory.

    In this order, since another recipe's folder, from which one looks at this, has files of the same names.
    """
    return [*place.absolute().parents, Path.cwd()]


def root_of(place: Path, paths: Iterable[str]) -> Path | None:
    """The first of :func:`roots` in which one of some paths is there; None if none is, or no path is given."""
    names = list(paths)
    return next((root for root in roots(place) if any((root / name).exists() for name in names)), None)
