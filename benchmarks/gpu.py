"""What a GPU makes of the solver and of a training step: `python3 benchmarks/gpu.py [--out docs/gpu.json]`.

The problems of transport_speed.py and the model of training_step.py. Each figure is a median over repetitions that
alternate between all solvers, the device waited for before and after; plans are rounded to exact marginals before
their objective is taken; "above the best" is above the lowest that any line found for that problem. POT's conditional
gradient runs on the CPU beside it, on two threads (OMP_NUM_THREADS), and so do our numba kernels where --numba asks for
them (their first call compiles for minutes).
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")  # POT's loop of small products is slower with more

import torch
import training_step
from provenance import provenance
from transport_speed import OURS, SHAPES, objective, pot_batch, pot_loop, problem

from espnet_gmot.transport import fused_gromov_wasserstein, gpu

_SLOW = 2.0  # seconds from which one repetition has to do
SETTINGS = ("2 x 50", "3 x 50", "5 x 50", "8 x 50", "loose", "default", "precise")


def ours(options: dict[str, Any], triton: bool = True, **more: Any) -> Callable:
    """Our solver as a function from a problem to a plan, with Triton's kernels or with torch's alone."""

    def solve(*problem: torch.Tensor) -> torch.Tensor:
        """(B, T, U)."""
        enabled, gpu.ENABLED = gpu.ENABLED, gpu.ENABLED and triton
        try:
            return fused_gromov_wasserstein(*problem, **options, **more).plan
        finally:
            gpu.ENABLED = enabled

    return solve


def solvers(name: str, numba: bool) -> dict[str, tuple[str, Callable]]:
    """Device and solver of every line."""
    table = {f"ours, {label}": ("cuda", ours(OURS[label])) for label in SETTINGS}
    for label in ("5 x 50", "loose"):
        table[f"ours, {label}, torch's kernels alone"] = ("cuda", ours(OURS[label], triton=False))
    for label in ("loose", "default") if numba else ():
        table[f"ours, {label}, numba on the CPU"] = ("cpu", ours(OURS[label], backend="numba"))
    table["POT conditional gradient on the CPU"] = ("cpu", pot_loop("cg"))
    if name == "one shape":
        table["POT batch (its defaults)"] = ("cuda", pot_batch)
    return table


def measure(name: str, batch: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of every solver, and how far its objective is above the best."""
    on_cpu = problem(**SHAPES[name], batch=batch)
    data = {"cpu": on_cpu, "cuda": tuple(tensor.cuda() for tensor in on_cpu)}
    table = solvers(name, args.numba)
    values: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {label: [] for label in table}
    repeats = dict.fromkeys(table, args.repeats)
    for label, (device, solve) in table.items():
        if hasattr(solve, "prepare"):
            solve.prepare(data[device])
        values[label] = objective(on_cpu, solve(*data[device]).cpu())
        start = time.perf_counter()
        solve(*data[device])  # a second warm-up: graphs reuse the first one's memory
        if time.perf_counter() - start > _SLOW:
            repeats[label] = 1
    for turn in range(args.repeats):
        for label, (device, solve) in table.items():
            if turn >= repeats[label]:
                continue
            torch.cuda.synchronize()
            start = time.perf_counter()
            solve(*data[device])
            torch.cuda.synchronize()
            seconds[label].append(time.perf_counter() - start)
    best = [min(found) for found in zip(*values.values(), strict=True)]
    rows = {}
    for label in table:
        above = [100 * (mine / least - 1) for mine, least in zip(values[label], best, strict=True)]
        rows[label] = {
            "seconds": statistics.median(seconds[label]),
            "above the best, %": 100 * (statistics.fmean(values[label]) / statistics.fmean(best) - 1),
            "worst, %": max(above),
        }
        print(f"{name}, {batch}: {label:38s} {1e3 * rows[label]['seconds']:9.2f} ms, "
              f"{rows[label]['above the best, %']:+.3f} % (worst {max(above):+.2f} %)", flush=True)  # fmt: skip
    return rows


def steps(utterances: int, amp: bool, pairs: int) -> dict[str, Any]:
    """Seconds of a training step without and with GM-OT, taken in turn, and the most memory each took."""
    systems, peaks = {}, {}
    for gmot in (False, True):
        model = training_step.build(gmot).cuda()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        data = {k: v.cuda() for k, v in training_step.batch(gmot, utterances, 5.0).items()}
        systems[gmot] = model, optimizer, data

    def step(gmot: bool) -> float:
        """One step and its seconds."""
        return training_step.step(*systems[gmot], amp)

    for gmot in (False, True, False, True):
        torch.cuda.reset_peak_memory_stats()
        step(gmot)
        peaks[gmot] = torch.cuda.max_memory_allocated() / 2**20
    found = [(step(False), step(True)) for _ in range(pairs)]
    ratios = [theirs / alone for alone, theirs in found]
    result = {
        "without_ms": 1e3 * statistics.median(alone for alone, _ in found),
        "with_ms": 1e3 * statistics.median(theirs for _, theirs in found),
        "ratio": statistics.median(ratios),
        "ratios": [min(ratios), max(ratios)],
        "peak_mib": [peaks[False], peaks[True]],  # both models and optimizers are there in both
    }
    print(f"step, {utterances} utterances, {'bfloat16' if amp else 'float32'}: {result}", flush=True)
    return result


def main() -> None:
    """Measure, print and, with --out, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="counted repetitions")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128], help="problems of a batch")
    parser.add_argument("--steps", type=int, nargs="+", default=[16, 64], help="utterances of a training step")
    parser.add_argument("--numba", action="store_true", help="our CPU kernels, too")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    report: dict[str, Any] = {**provenance(), "gpu": torch.cuda.get_device_name(), "cores": os.cpu_count()}
    report["solvers"] = {f"{name}, {batch}": measure(name, batch, args) for batch in args.batches for name in SHAPES}
    report["steps"] = {
        f"{count} utterances, {'bfloat16' if amp else 'float32'}": steps(count, amp, 2 * args.repeats)
        for count in args.steps
        for amp in (False, True)
    }
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
