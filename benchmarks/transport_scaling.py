"""Time and memory of the factored solver as sequences grow, and memory over iterations.

    python benchmarks/transport_scaling.py [--threads 2] [--repeats 5] [--out docs]

Cosine edges of rank 256, 200 tokens, T from 1,000 to 8,000 frames: no T x T matrix is ever formed. Peaks are the
process's own high-water marks, above what it held before the first call; times are processor seconds of all threads,
since wall time on a busy machine measures its neighbours. Both are medians over several processes a length, in turn.
Writes OUT/transport_scaling.{json,png}.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

from provenance import provenance

FRAMES, TOKENS, WIDTH = (1000, 2000, 4000, 8000), 200, 256
ROUNDS = 5  # processes a length


def main() -> None:
    """Measure every length in a process of its own, write the figures and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--one", type=int, help="measure this length only and print it")
    args = parser.parse_args()
    os.environ["NUMBA_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(args.threads)
    # threads that wait must not burn the processor that the others need
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", RuntimeWarning)
    if args.one:
        print(json.dumps(one(args.one, args.repeats)))
        return
    origin = provenance()
    again = [sys.executable, __file__, "--threads", str(args.threads), "--repeats", str(args.repeats), "--one"]
    runs: dict[int, list[dict]] = {frames: [] for frames in FRAMES}
    for frames in FRAMES * ROUNDS:  # in turn, so that a busy minute touches all lengths
        runs[frames].append(json.loads(subprocess.run([*again, str(frames)], check=True, capture_output=True).stdout))
        print(runs[frames][-1], flush=True)
    rows = [{key: statistics.median(run[key] for run in same) for key in same[0]} for same in runs.values()]
    first, last = rows[0], rows[-1]
    growth = last["frames"] / first["frames"]
    report = {
        **origin,
        "threads": args.threads,
        "rows": rows,
        "time over linear": round(last["seconds"] / first["seconds"] / growth, 3),
        "memory over linear": round(last["peak MB"] / first["peak MB"] / growth, 3),
        "process at T = 8,000, MB": last["process MB"],
        "peak in plans": {str(n): round(plans(n), 2) for n in (5, 50, 500)},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "transport_scaling.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(report, args.out / "transport_scaling.png")
    print(json.dumps(report, indent=1))


def _memory(field: str) -> float:
    """A field of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def _forget_peak() -> float:
    """Reset the high-water mark; returns what is held now, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def one(frames: int, repeats: int) -> dict:
    """A sample of `frames` frames: median processor seconds of 10 outer steps with gradient, and the peak."""
    import torch

    from espnet_gmot.transport import CosineEdges, cosine_cost, fused_gromov_wasserstein

    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, TOKENS, WIDTH, generator=g)
    h = torch.randn(1, frames, WIDTH, generator=g) + z[:, torch.arange(frames) * TOKENS // frames]
    h.requires_grad_()
    lengths = torch.tensor([frames]), torch.tensor([TOKENS])
    few = torch.tensor([8]), torch.tensor([4])  # compiled or loaded before anything is measured
    tiny = CosineEdges(h.detach()[:, :8, :2]), CosineEdges(z[:, :4, :2])
    fused_gromov_wasserstein(torch.rand(1, 8, 4), *tiny, *few)

    def step() -> None:
        """One solve and its gradient."""
        h.grad = None
        edges = CosineEdges(h), CosineEdges(z)
        options = {"outer_iterations": 10, "inner_iterations": 20, "tolerance": 0.0}
        fused_gromov_wasserstein(cosine_cost(h, z), *edges, *lengths, **options).value.sum().backward()

    before, seconds = _forget_peak(), []
    step()
    for _ in range(repeats):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    peak = _memory("VmHWM")
    return {"frames": frames, "seconds": statistics.median(seconds), "peak MB": peak - before, "process MB": peak}


def plans(outer: int) -> float:
    """Peak above costs and result, in plans, of a padded batch solved with so many outer steps."""
    import torch

    from espnet_gmot.transport import fused_gromov_wasserstein

    batch, frames, tokens = 64, 400, 60
    g = torch.Generator().manual_seed(0)
    cost, a = torch.rand(batch, frames, tokens, generator=g), torch.rand(batch, frames, frames, generator=g)
    b = torch.rand(batch, tokens, tokens, generator=g)
    a, b = (x.triu() + x.triu(1).mT for x in (a, b))  # edges are symmetric
    lengths = torch.full((batch,), frames), torch.full((batch,), tokens)
    options = {"inner_iterations": 20, "tolerance": 0.0}
    fused_gromov_wasserstein(cost[:2], a[:2], b[:2], *(x[:2] for x in lengths), outer_iterations=1, **options)
    before = _forget_peak()
    result = fused_gromov_wasserstein(cost, a, b, *lengths, outer_iterations=outer, **options)
    size = result.plan.numel() * 4 / 2**20
    return (_memory("VmHWM") - before) / size


def plot(report: dict, path: Path) -> None:
    """Log-log time and memory beside lines of slope one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4))
    frames = [r["frames"] for r in report["rows"]]
    for axis, key, label in (
        (axes[0], "seconds", "seconds, 10 outer steps and gradient"),
        (axes[1], "peak MB", "peak, MB"),
    ):
        values = [r[key] for r in report["rows"]]
        axis.loglog(frames, values, "o-", label="factored cosine edges")
        axis.loglog(frames, [values[0] * f / frames[0] for f in frames], "--", color="grey", label="linear")
        axis.set(xlabel="frames T (200 tokens, rank 256)", ylabel=label)
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
