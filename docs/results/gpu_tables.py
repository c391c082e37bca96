"""The tables of docs/transport.md that benchmarks/gpu.py's JSON files hold."""

import json
import math
from pathlib import Path
from typing import Any

Table = tuple[list[str], list[list[str]]]
"""Headings and rows."""

_CG, _BATCH = "POT conditional gradient on the CPU", "POT batch (its defaults)"
_ABOVE, _WORST = "above the best, %", "worst, %"


def solvers(path: Path) -> Table:
    """Milliseconds a batch, a line for each kind and number of problems.

    Args:
        path: what `benchmarks/gpu.py --out` wrote.
    """
    head = ["problems a batch", f"ours within 0.5 % of POT's conditional gradient, ms on {_card(path)}"]
    head += ["within 0.05 %, none 1 % above", "default", "5 × 50, and with torch's kernels alone"]
    head += ["`ot.batch` on the GPU, and ours"]
    rows = []
    for problems, found in json.loads(path.read_text())["solvers"].items():
        ours = {n: row for n, row in found.items() if n.startswith("ours") and n.count(",") == 1}
        limit = found[_CG][_ABOVE]
        steps, torch = found["ours, 5 x 50"]["seconds"], found["ours, 5 x 50, torch's kernels alone"]["seconds"]
        cells = [problems, _ms(_quickest(ours, limit + 0.5)), _ms(_quickest(ours, limit + 0.05, worst=1.0))]
        cells += [_ms(ours["ours, default"]["seconds"]), f"{_ms(steps)}, {_ms(torch)} ({torch / steps:.0f} ×)"]
        if batch := found.get(_BATCH):
            mine = _quickest(ours, batch[_ABOVE])
            cells += [f"{_ms(batch['seconds'])}, {_ms(mine)} ({batch['seconds'] / mine:.0f} ×)"]
        rows.append(cells + [""] * (len(head) - len(cells)))
    return head, rows


def steps(paths: list[Path]) -> Table:
    """A training step with GM-OT over one without, a line for each card and batch."""
    head = ["GPU", "a batch", "with over without (range)", "without, ms", "with, ms"]
    rows = []
    for path in paths:
        for batch, found in json.loads(path.read_text())["steps"].items():
            ratio = f"{found['ratio']:.2f} ({found['ratios'][0]:.2f} to {found['ratios'][1]:.2f})"
            rows.append([_card(path), batch, ratio, f"{found['without_ms']:.0f}", f"{found['with_ms']:.0f}"])
    return head, rows


def _card(path: Path) -> str:
    name: str = json.loads(path.read_text())["gpu"]
    return name.removeprefix("NVIDIA ").split()[0]


def _quickest(rows: dict[str, Any], above: float, worst: float = math.inf) -> float:
    """Seconds of the quickest whose objectives are above the best by no more than this, on average and at worst."""
    return min(row["seconds"] for row in rows.values() if row[_ABOVE] <= above and row[_WORST] <= worst)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}"
