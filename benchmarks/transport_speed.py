"""Speed against objective of every fused Gromov-Wasserstein solver at hand, on AISHELL-like shapes.

    python benchmarks/transport_speed.py [--threads 2] [--repeats 5] [--out docs] [--quick]

All solvers run in this one process, in turn, so that a busy machine slows all of them; each figure is a median of
`--repeats` runs. Beside wall time it gives processor time (all threads), which a machine's other work disturbs less.
Every plan is rounded to exact marginals before its objective is taken. Writes
OUT/transport_speed.json and OUT/transport_speed.png.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from provenance import provenance

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--repeats", type=int, default=5)
parser.add_argument("--out", type=Path, default=Path("docs"))
parser.add_argument("--quick", action="store_true", help="leave out POT's batch solver, which takes minutes")

SHAPES = {
    "AISHELL-like": {"frames": (60, 160), "tokens": (8, 24)},
    "long": {"frames": (400, 400), "tokens": (60, 60)},
    "one shape": {"frames": (110, 110), "tokens": (16, 16)},
}
#: The same as "AISHELL-like" with other frames: how loud a frame's token and its noise are. What few steps miss differs
#: from family to family, so the report names the worst.
FAMILIES = {
    "noise": {"signal": 0.0, "noise": 1.0},
    "AISHELL-like": {"signal": 0.5, "noise": 1.0},
    "loud noise": {"signal": 1.0, "noise": 1.5},
    "clean": {"signal": 1.0, "noise": 0.5},
}
OURS = {
    "2 x 50": {"outer_iterations": 2, "inner_iterations": 50, "tolerance": 0.0},
    "5 x 50": {"outer_iterations": 5, "inner_iterations": 50, "tolerance": 0.0},
    "3 x 50": {"outer_iterations": 3, "inner_iterations": 50, "tolerance": 0.0},
    "8 x 50": {"epsilon": 0.07, "outer_iterations": 8, "inner_iterations": 50, "tolerance": 0.0},
    "loose": {"inner_iterations": 50, "tolerance": 0.05},
    "default": {},
    "precise": {"epsilon": 0.07, "tolerance": 2e-3},
    "fine": {"tolerance": 1e-3},
}
#: Our settings that the families compare, and the solver that they are compared with.
FAMILY_SOLVERS = (*(f"ours, {label}" for label in OURS), "POT conditional gradient")


def main() -> None:
    """Measure every solver on every shape, write the figures and the plot."""
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    # threads that wait must not burn the processor that the others need
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", RuntimeWarning)
    report: dict = {**provenance(), "threads": args.threads, "shapes": {}}
    for name, shape in SHAPES.items():
        report["shapes"][name] = measure(name, shape, args)
    report["families"] = {
        name: measure(name, {**SHAPES["AISHELL-like"], **family}, args, FAMILY_SOLVERS)
        for name, family in FAMILIES.items()
    }
    report["worst family"] = worst(report["families"])
    report["ratios"] = ratios(report["shapes"], "seconds")
    report["ratios of processor seconds"] = ratios(report["shapes"], "processor seconds")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "transport_speed.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(report, args.out / "transport_speed.png")
    print(json.dumps({k: v for k, v in report.items() if k.startswith(("ratios", "worst"))}, indent=1))


def problem(
    frames: tuple[int, int],
    tokens: tuple[int, int],
    signal: float = 0.5,
    noise: float = 1.0,
    batch: int = 32,
    width: int = 256,
):
    """Padded batch of frames, each `signal` times its token plus `noise` times noise, and its lengths."""
    import torch

    from espnet_gmot.transport import cosine_cost, cosine_edges

    g = torch.Generator().manual_seed(1)
    t = torch.randint(frames[0], frames[1] + 1, (batch,), generator=g)
    u = torch.randint(tokens[0], tokens[1] + 1, (batch,), generator=g)
    h = noise * torch.randn(batch, frames[1], width, generator=g)
    z = torch.randn(batch, tokens[1], width, generator=g)
    for b in range(batch):
        h[b] += signal * z[b][(torch.arange(frames[1]) * u[b] // t[b]).clamp(max=int(u[b]) - 1)]
        h[b, t[b] :], z[b, u[b] :] = 0, 0
    return cosine_cost(h, z), cosine_edges(h), cosine_edges(z), t, u


def solvers(name: str, args: argparse.Namespace) -> dict[str, Callable]:
    """Every solver as a function from a problem to a padded plan."""
    from espnet_gmot.transport import fused_gromov_wasserstein

    table: dict[str, Callable] = {}
    for label, options in OURS.items():
        table[f"ours, {label}"] = lambda *p, o=options: fused_gromov_wasserstein(*p, **o).plan
    table["POT conditional gradient"] = pot_loop("cg")
    if name == "long":
        return table
    same = {"outer_iterations": 20, "inner_iterations": 20, "tolerance": 0.0}
    for backend in ("numba", "torch"):
        table[f"ours, 20 x 20, {backend}"] = lambda *p, b=backend: fused_gromov_wasserstein(*p, **same, backend=b).plan
    table["POT PPA (20, 20)"] = pot_loop("ppa")
    if name == "one shape" and not args.quick:
        table["POT batch (its defaults)"] = pot_batch
    return table


def pot_loop(kind: str) -> Callable:
    """POT's solvers, one sample at a time, float64 arrays made beforehand and not timed."""
    import numpy as np
    import ot
    import torch

    cache: dict[int, list] = {}

    def prepare(problem: tuple) -> list:
        """POT's arrays of each sample, made once a problem."""
        key = id(problem[0])
        if key not in cache:
            arrays = [x.double().numpy() for x in problem[:3]]
            sizes = zip(problem[3].tolist(), problem[4].tolist(), strict=True)
            cut = [np.ascontiguousarray for _ in range(3)]
            cache[key] = [
                (cut[0](arrays[0][i, :t, :u]), cut[1](arrays[1][i, :t, :t]), cut[2](arrays[2][i, :u, :u]))
                for i, (t, u) in enumerate(sizes)
            ]
        return cache[key]

    def solve(*problem):
        """The padded plans (B, T, U) of a loop over samples."""
        plan = torch.zeros_like(problem[0])
        for i, (cost, a, b) in enumerate(prepare(problem)):
            if kind == "cg":
                one = ot.gromov.fused_gromov_wasserstein(cost, a, b, alpha=0.5, symmetric=True)
            else:
                one = ot.gromov.entropic_fused_gromov_wasserstein(
                    cost, a, b, alpha=0.5, symmetric=True, solver="PPA", epsilon=0.02, max_iter=20, numItermax=20
                )
            plan[i, : cost.shape[0], : cost.shape[1]] = torch.from_numpy(one).float()
        return plan

    solve.prepare = prepare
    return solve


def pot_batch(*problem):
    """POT's batch solver, which has no mask, hence only for problems of one shape."""
    import torch
    from ot.batch import solve_gromov_batch

    result = solve_gromov_batch(problem[1], problem[2], M=problem[0], alpha=0.5, symmetric=True)
    return torch.nan_to_num(result.plan)


def objective(problem: tuple, plan) -> list[float]:
    """Fused Gromov-Wasserstein objective of each sample after rounding to exact marginals, in float64."""
    import torch

    from espnet_gmot.transport.sinkhorn import round_plan

    cost, a, b, t, u = problem
    cost, a, b, plan = (x.double() for x in (cost, a, b, plan))
    p = (torch.arange(cost.shape[1]) < t[:, None]).double() / t[:, None]
    q = (torch.arange(cost.shape[2]) < u[:, None]).double() / u[:, None]
    plan = round_plan(plan, p, q)
    square = torch.einsum("bik,bi,bk->b", a * a, p, p) + torch.einsum("bjl,bj,bl->b", b * b, q, q)
    energy = square - 2 * ((a @ plan @ b) * plan).sum((1, 2))
    return (0.5 * (cost * plan).sum((1, 2)) + 0.5 * energy).tolist()


def measure(name: str, shape: dict, args: argparse.Namespace, only: tuple[str, ...] | None = None) -> dict:
    """Median seconds, mean objective and worst excess over POT's conditional gradient of every solver, or of some."""
    data, table = problem(**shape), solvers(name, args)
    table = {label: solve for label, solve in table.items() if only is None or label in only}
    rows: dict[str, dict] = {}
    for label, solve in table.items():  # compilation, caches and the plans themselves: not timed
        if hasattr(solve, "prepare"):
            solve.prepare(data)
        start = time.perf_counter()
        rows[label] = {"values": objective(data, solve(*data)), "seconds": [], "processor seconds": []}
        rows[label]["repeats"] = args.repeats if time.perf_counter() - start < 20 else 1
    for turn in range(args.repeats):
        for label, solve in table.items():
            if turn < rows[label]["repeats"]:
                start, used = time.perf_counter(), time.process_time()
                solve(*data)
                rows[label]["seconds"].append(time.perf_counter() - start)
                rows[label]["processor seconds"].append(time.process_time() - used)
    base = rows["POT conditional gradient"]["values"]
    for label, row in rows.items():
        values = row.pop("values")
        row["mean objective"] = statistics.fmean(values)
        row["mean excess, %"] = 100 * (statistics.fmean(values) / statistics.fmean(base) - 1)
        row["worst excess, %"] = 100 * max(v / w - 1 for v, w in zip(values, base, strict=True))
        for unit in ("seconds", "processor seconds"):
            row[unit] = statistics.median(row[unit])
        print(f"{name:14s} {label:28s} {1e3 * row['seconds']:10.1f} ms  objective {row['mean objective']:.5f} "
              f"({row['mean excess, %']:+.3f} %, worst {row['worst excess, %']:+.3f} %)", flush=True)  # fmt: skip
    return rows


def worst(families: dict[str, dict]) -> dict[str, dict[str, float | str]]:
    """Of each of our settings, the family that it misses most: its mean excess there, and how much faster it is."""
    out: dict[str, dict[str, float | str]] = {}
    for label in FAMILY_SOLVERS[:-1]:
        family = max(families, key=lambda name: families[name][label]["mean excess, %"])
        rows = families[family]
        speed = {
            f"times as fast ({unit})": round(rows[FAMILY_SOLVERS[-1]][unit] / rows[label][unit], 1)
            for unit in ("seconds", "processor seconds")
        }
        out[label] = {"family": family, "mean excess, %": round(rows[label]["mean excess, %"], 3), **speed}
    return out


def ratios(shapes: dict, unit: str) -> dict[str, float | str]:
    """How many times faster the quickest of our settings is that meets each condition."""

    def quickest(rows: dict, fit: Callable[[dict], bool]) -> float:
        """The least time among our settings that meet a condition."""
        return min((r[unit] for k, r in rows.items() if k.startswith("ours") and fit(r)), default=float("inf"))

    out: dict[str, float | str] = {}
    for name in ("AISHELL-like", "long"):
        rows, cg = shapes[name], shapes[name]["POT conditional gradient"][unit]
        out[f"{name}: POT conditional gradient, mean within 0.5 %"] = cg / quickest(
            rows, lambda r: r["mean excess, %"] <= 0.5
        )
        out[f"{name}: the same, mean within 0.05 %, none 1 % above"] = cg / quickest(
            rows, lambda r: r["mean excess, %"] <= 0.05 and r["worst excess, %"] <= 1.0
        )
    rows = shapes["AISHELL-like"]
    for peer, where in (("POT PPA (20, 20)", "AISHELL-like"), ("POT batch (its defaults)", "one shape")):
        if peer in shapes[where]:
            goal = shapes[where][peer]
            out[f"{where}: {peer}, objective not above"] = goal[unit] / quickest(
                shapes[where], lambda r, goal=goal: r["mean objective"] <= goal["mean objective"]
            )
    out["AISHELL-like: own torch backend, same steps"] = (
        rows["ours, 20 x 20, torch"][unit] / rows["ours, 20 x 20, numba"][unit]
    )
    return {k: round(v, 2) for k, v in out.items()}


def plot(report: dict, path: Path) -> None:
    """Seconds against excess over the best objective, one panel a shape."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(report["shapes"]), figsize=(14, 4.5))
    for axis, (name, rows) in zip(axes, report["shapes"].items(), strict=True):
        best = min(r["mean objective"] for r in rows.values())
        for label, row in rows.items():
            excess = max(100 * (row["mean objective"] / best - 1), 1e-3)
            axis.scatter(row["seconds"], excess, s=50, marker="o" if label.startswith("ours") else "s", label=label)
        axis.set(xscale="log", yscale="log", title=name, xlabel="seconds per batch of 32")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6)
    axes[0].set_ylabel("mean objective above the best, % (floor 0.001)")
    figure.suptitle(f"Fused Gromov-Wasserstein, {report['threads']} threads: lower left is better")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
