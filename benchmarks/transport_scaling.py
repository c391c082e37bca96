"""Time and memory of the factored solver as sequences grow, and memory over iterations.

    python benchmarks/transport_scaling.py [--threads 2] [--repeats 5] [--out docs]

Cosine edges of rank 256, 200 tokens, T from 1,000 to 8,000 frames: no T x T matrix is ever formed. Peaks are the
process's own high-water marks above what it held before the call. Writes OUT/transport_scaling.{json,png}.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from pathlib import Path

FRAMES, TOKENS, WIDTH = (1000, 2000, 4000, 8000), 200, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    os.environ["NUMBA_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import torch

    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", RuntimeWarning)
    rows = [one(frames, args.repeats) for frames in FRAMES]
    first, last = rows[0], rows[-1]
    growth = last["frames"] / first["frames"]
    report = {
        "date": time.strftime("%Y-%m-%d"),
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
    """A sample of `frames` frames: median seconds of 10 outer steps with gradient, and the peak."""
    import torch

    from espnet_gmot.transport import CosineEdges, cosine_cost, fused_gromov_wasserstein

    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, TOKENS, WIDTH, generator=g)
    h = torch.randn(1, frames, WIDTH, generator=g) + z[:, torch.arange(frames) * TOKENS // frames]
    h.requires_grad_()
    lengths = torch.tensor([frames]), torch.tensor([TOKENS])

    def step() -> None:
        h.grad = None
        edges = CosineEdges(h), CosineEdges(z)
        options = {"outer_iterations": 10, "inner_iterations": 20, "tolerance": 0.0}
        fused_gromov_wasserstein(cosine_cost(h, z), *edges, *lengths, **options).value.sum().backward()

    step()
    before, seconds = _forget_peak(), []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    peak = _memory("VmHWM")
    row = {"frames": frames, "seconds": statistics.median(seconds), "peak MB": peak - before, "process MB": peak}
    print(row, flush=True)
    return row


def plans(outer: int) -> float:
    """Peak above costs and result, in plans, of a padded batch solved with so many outer steps."""
    import torch

    from espnet_gmot.transport import fused_gromov_wasserstein

    batch, frames, tokens = 64, 400, 60
    g = torch.Generator().manual_seed(0)
    cost, a = torch.rand(batch, frames, tokens, generator=g), torch.rand(batch, frames, frames, generator=g)
    b = torch.rand(batch, tokens, tokens, generator=g)
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
