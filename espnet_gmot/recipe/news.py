"""How far a comparison's cells are, and when they will be done."""

import time
from collections.abc import Sequence

from espnet_gmot.recipe.comparison import Cell
from espnet_gmot.report.training_log import read_training_log

_SECONDS = 10.0  # at least, between two lines


class News:
    """Says how far the cells are, and forecasts the end from the epochs so far.

    Args:
        cells: all of them.
        unfinished: those to train.
        jobs: at a time.
    """

    def __init__(self, cells: Sequence[Cell], unfinished: Sequence[Cell], jobs: int) -> None:
        self._cells, self._left, self._jobs = list(cells), list(unfinished), jobs
        self._last, self._shown = 0.0, ""

    def finished(self, cell: Cell) -> None:
        """A cell is done."""
        self._left.remove(cell)

    def __call__(self) -> None:
        """Print a line if there is news."""
        if time.monotonic() - self._last < _SECONDS:
            return
        self._last = time.monotonic()
        logs = {cell.name: read_training_log(cell.exp) for cell in self._cells}
        running = [cell for cell in self._left if logs[cell.name].max_epoch > 0]
        state = "; ".join(f"{cell.name} {len(logs[cell.name].epochs)}/{logs[cell.name].max_epoch}" for cell in running)
        if not state or state == self._shown:
            return
        self._shown = state
        pace = {name: [each.seconds for each in told.epochs] for name, told in logs.items()}
        seconds = forecast([(c.system.name, c.system.settings.get("max_epoch", 40), pace[c.name]) for c in self._cells],
                           [c in self._left for c in self._cells], self._jobs)  # fmt: skip
        done = len(self._cells) - len(self._left)
        log(f"{done} of {len(self._cells)} cells; {state}" + (f"; about {_span(seconds)} left" if seconds else ""))


def forecast(cells: Sequence[tuple[str, int, list[float]]], left: Sequence[bool], jobs: int) -> float:
    """Seconds until all cells are done.

    Args:
        cells: for each its system, its number of epochs, and the seconds that each epoch so far took.
        left: whether it is still to be done.
        jobs: cells at a time.

    Returns:
        The work left over the jobs, but not less than the longest cell; 0 before the first epoch.
    """
    everyone = [second for _, _, seconds in cells for second in seconds]
    if not everyone:
        return 0.0
    needs = []
    for (system, epochs, seconds), open_ in zip(cells, left, strict=True):
        same = [second for name, _, others in cells if name == system for second in others] or everyone
        needs.append(open_ * max(0, epochs - len(seconds)) * sum(same) / len(same))
    return max(sum(needs) / jobs, *needs)


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def log(text: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} (compare) {text}", flush=True)
