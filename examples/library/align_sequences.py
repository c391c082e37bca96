"""Couple two sequences that share no space: a film, and a heap of coordinates whose order got lost. Draw the plan.

    python3 examples/library/align_sequences.py plan.png

Nothing here is speech. A firefly spirals through a film of 60 pictures of 24 × 32 pixels. Somebody noted 15 of its
places in metres, not quite exactly, and dropped the notes: they lie there in any order. Between a picture and a pair
of coordinates there is no distance, hence no cost of nodes, and optimal transport alone can't begin. But there are
distances *within* the film and *within* the heap, and Gromov-Wasserstein (α = 1) asks for a plan that keeps them:
pictures that resemble each other go to notes that lie near each other. That suffices to put the notes in order.
"""

import math
import sys

import torch
from torch import Tensor

from espnet_gmot.transport import DenseEdges, FGWResult, fused_gromov_wasserstein

HEIGHT, WIDTH, SCALE, BLUR = 24, 32, 4.0, 6.0  # pixels; pixels a metre; pixels


def flight(time: Tensor) -> Tensor:
    """Places (N, 2) in metres at times (N,) from 0 to 1."""
    angle, radius = 1.5 * math.pi * time, 0.3 + 3.0 * time
    return torch.stack([4.0 + radius * angle.cos(), 3.0 + 0.9 * radius * angle.sin()], 1)


def film(places: Tensor) -> Tensor:
    """Pictures (N, HEIGHT * WIDTH) of a blurred light at places (N, 2)."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    x, y = (SCALE * places).T[:, :, None, None]
    return torch.exp(-((columns - x).square() + (rows - y).square()) / (2.0 * BLUR**2)).flatten(1)


def distances(rows: Tensor) -> DenseEdges:
    """How far every row of (N, D) is from every other; the farthest pair at 1, so that units don't matter."""
    matrix = torch.cdist(rows, rows)
    return DenseEdges((matrix / matrix.max())[None])


def couple(pictures: Tensor, notes: Tensor) -> FGWResult:
    """Couple N pictures (N, pixels) with M notes (M, 2): a batch of one, plan (1, N, M)."""
    lengths = torch.tensor([len(pictures)]), torch.tensor([len(notes)])
    no_cost = torch.zeros(1, len(pictures), len(notes))
    return fused_gromov_wasserstein(
        no_cost, distances(pictures), distances(notes), *lengths, alpha=1.0, outer_iterations=300, tolerance=1e-3
    )


def draw(plan: Tensor, order: Tensor, out: str) -> None:
    """The plan (N, M) with the notes as they lie and as it sorts them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for axis, shown, title in zip(axes, (plan, plan[:, order]), ("the heap", "sorted by the plan"), strict=True):
        axis.imshow(shown.T, cmap="Blues", aspect="auto", interpolation="nearest")
        axis.set(xlabel="picture of the film", ylabel="note", title=title)
    figure.savefig(out, dpi=110)


def main(out: str | None = None) -> tuple[list[int], list[int]]:
    """Sort the heap by the plan; return the order found and the true one.

    Args:
        out: picture to draw, or None.
    """
    moments, noted = torch.linspace(0, 1, 60), (torch.arange(15) + 0.5) / 15
    generator = torch.Generator().manual_seed(0)
    shuffle = torch.randperm(15, generator=generator)
    notes = flight(noted) + 0.02 * torch.randn(15, 2, generator=generator)
    result = couple(film(flight(moments)), notes[shuffle])
    plan = result.plan[0]
    found = (plan.T @ moments) / plan.sum(0)  # of each note: the mean moment of the pictures that it is coupled with
    order, truth = found.argsort(), shuffle.argsort()
    print(f"distance {float(result.value):.4f}; {int((order == truth).sum())} of 15 notes in their place again")
    if out:
        draw(plan, order, out)
    return order.tolist(), truth.tolist()


if __name__ == "__main__":
    main(*sys.argv[1:])
