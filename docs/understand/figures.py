"""Draw the pictures of "Understand" by solving the problems that they show: `python3 docs/understand/figures.py`.

Every plan comes from `espnet_gmot.transport`; the features are made here, so that the true alignment is known.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from espnet_gmot.transport import (
    CosineEdges,
    FGWResult,
    SumEdges,
    TemporalEdges,
    cosine_cost,
    diagonal_prior,
    fused_gromov_wasserstein,
    order_prior,
)

HERE = Path(__file__).parent
SPANS = (5, 3, 6, 4, 7, 3)  # frames of each token of the example
SILENCE = -1  # owner of a frame in which no token is spoken
PLAN = {"cmap": "Blues", "aspect": "auto", "interpolation": "nearest"}


def example(noise: float = 1.0, width: int = 24, seed: int = 3) -> tuple[Tensor, Tensor, list[int]]:
    """Tokens (U, D), frames (T, D) that are their token plus noise, and each frame's token."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(SPANS), width, generator=generator)
    owner = [j for j, span in enumerate(SPANS) for _ in range(span)]
    frames = tokens[owner] + noise * torch.randn(len(owner), width, generator=generator)
    return frames, tokens, owner


def solve(frames: Tensor, tokens: Tensor, *, temporal: float = 0.0, **options: object) -> FGWResult:
    """The plan of one pair of sequences, with feature edges and `temporal` times temporal ones."""
    sizes = [torch.tensor([len(rows)]) for rows in (frames, tokens)]
    edges = [
        SumEdges([(1.0, CosineEdges(rows[None])), (temporal, TemporalEdges(size, len(rows)))])
        for rows, size in zip((frames, tokens), sizes, strict=True)
    ]
    settings = {"outer_iterations": 500, "tolerance": 1e-4, "backend": "torch"} | options
    return fused_gromov_wasserstein(cosine_cost(frames[None], tokens[None]), *edges, *sizes, **settings)


def picture(axes: Axes, matrix: Tensor, title: str, owner: list[int] | None = None, cmap: str = "Blues") -> None:
    """A matrix with frames from left to right and tokens from top to bottom; the true owner of each frame outlined."""
    axes.imshow(matrix.T.numpy(), **(PLAN | {"cmap": cmap}))
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks(range(matrix.shape[1]), [f"$z_{j + 1}$" for j in range(matrix.shape[1])], fontsize=7)
    if owner is None:
        return
    for token in sorted(set(owner) - {SILENCE}):
        for start, stop in _runs([frame for frame, j in enumerate(owner) if j == token]):
            box = plt.Rectangle((start - 0.5, token - 0.5), stop - start + 1, 1, fill=False, color="#d55e00", lw=1.2)
            axes.add_patch(box)


def _runs(frames: list[int]) -> list[tuple[int, int]]:
    """Consecutive frames as (first, last) pairs."""
    starts = [f for f in frames if f - 1 not in frames]
    return [(f, next(g for g in range(f, frames[-1] + 1) if g + 1 not in frames)) for f in starts]


def save(figure: plt.Figure, name: str) -> None:
    """Write one picture beside this file, the same bytes for the same picture."""
    figure.savefig(HERE / f"{name}.png", dpi=110, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    plt.close(figure)


def coupling() -> None:
    """A cost and the plan that it asks for."""
    frames, tokens, owner = example()
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.2), layout="constrained")
    picture(axes[0], cosine_cost(frames[None], tokens[None])[0], "cost: dark = far", owner, cmap="Greys")
    picture(axes[1], solve(frames, tokens, alpha=0.0).plan[0], "plan: dark = much mass", owner)
    save(figure, "coupling")


def twins() -> None:
    """Tokens 1 and 4 are the same vector: node costs tie, and the temporal edges decide."""
    frames, tokens, owner = example(noise=0.4)
    frames = frames + (tokens[0] - tokens[3]) * torch.tensor([float(j == 3) for j in owner])[:, None]
    tokens = tokens.clone()
    tokens[3] = tokens[0]
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.2), layout="constrained")
    picture(axes[0], cosine_cost(frames[None], tokens[None])[0], "cost: rows 1 and 4 are the same", owner, cmap="Greys")
    picture(axes[1], solve(frames, tokens, alpha=0.0).plan[0], "α = 0: nodes alone can't tell them apart", owner)
    picture(axes[2], solve(frames, tokens, alpha=0.7, temporal=2.0).plan[0], "α = 0.7, temporal edges", owner)
    save(figure, "twins")


def rows() -> None:
    """One row of small plots for every knob."""
    frames, tokens, owner = example(noise=2.2)
    sizes = torch.tensor([len(frames)]), torch.tensor([len(tokens)])
    noisy = frames.clone()
    noisy[-6:] = torch.randn(6, frames.shape[1], generator=torch.Generator().manual_seed(9))  # noise at the end
    knobs: dict[str, list[tuple[str, Tensor, dict[str, object]]]] = {
        "alpha": [(f"α = {a}", frames, {"alpha": a, "temporal": 1.0}) for a in (0.0, 0.3, 0.7, 1.0)],
        "epsilon": [
            (f"ε = {e}", frames, {"alpha": 0.0, "method": "mirror", "epsilon": e}) for e in (0.01, 0.05, 0.2, 1.0)
        ],
        "rho": [
            (f"ρ = {r}", noisy, {"alpha": 0.0, "method": "mirror", "rho_acoustic": r})
            for r in (float("inf"), 1.0, 0.1, 0.01)
        ],
        "prior": [
            ("no prior", frames, {"alpha": 0.0}),
            ("order, λ1 = 1", frames, {"alpha": 0.0, "prior": order_prior(*sizes, lambda1=1.0)}),
            ("order, λ1 = 50", frames, {"alpha": 0.0, "prior": order_prior(*sizes)}),
            ("band, half width 0.1", frames, {"alpha": 0.0, "prior": diagonal_prior(*sizes, weight=10.0)}),
        ],
        "tolerance": [
            (f"tolerance {t}", frames, {"alpha": 0.5, "tolerance": t, "epsilon": 0.3}) for t in (1.0, 0.3, 0.05, 1e-4)
        ],
    }
    for name, variants in knobs.items():
        figure, axes = plt.subplots(1, 4, figsize=(11, 1.9), layout="constrained")
        for axis, (title, features, options) in zip(axes, variants, strict=True):
            result = solve(features, tokens, **options)
            more = f", {int(result.iterations)} steps" if name == "tolerance" else ""
            picture(axis, result.plan[0], title + more, owner)
        save(figure, name)


def silence() -> None:
    """Speech after a long silence and with a pause: a prior that counts all frames, and one that counts speech."""
    spoken, tokens, said = example(noise=2.2)
    owner = [SILENCE] * 14 + said[:14] + [SILENCE] * 8 + said[14:] + [SILENCE] * 4
    heard = torch.tensor(owner) != SILENCE
    frames = 2.2 * torch.randn(len(owner), spoken.shape[1], generator=torch.Generator().manual_seed(4))
    frames[heard] = spoken
    speech = torch.where(heard, 0.9, 0.01)[None]  # 1 - p(blank)
    sizes = torch.tensor([len(frames)]), torch.tensor([len(tokens)])
    figure, axes = plt.subplots(1, 3, figsize=(11, 1.9), layout="constrained")
    for axis, title, weights, prior in (
        (axes[0], "all frames alike, no prior", None, None),
        (axes[1], "all frames alike, order", None, order_prior(*sizes)),
        (axes[2], "frame_weights: blank, order", speech, order_prior(*sizes, acoustic_weights=speech)),
    ):
        plan = solve(frames, tokens, alpha=0.5, acoustic_weights=weights, prior=prior).plan[0]
        picture(axis, plan / plan.sum(0), title, owner)
    save(figure, "silence")


def gradient() -> None:
    """In two dimensions: where each frame is told to go."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.tensor([[1.0, 0.1], [0.2, 1.0], [-0.9, 0.5]])
    owner = [0] * 4 + [1] * 5 + [2] * 4
    frames = (tokens[owner] + 0.45 * torch.randn(len(owner), 2, generator=generator)).requires_grad_()
    result = solve(frames, tokens, alpha=0.5, temporal=0.5)
    result.value.sum().backward()
    points, plan, arrows = frames.detach(), result.plan[0], -2.0 * frames.grad
    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for i, row in enumerate(plan):
        for j, mass in enumerate(row.tolist()):
            share = mass / float(row.sum())
            axes.plot(
                *zip(points[i].tolist(), tokens[j].tolist(), strict=True), color="#0072b2", alpha=0.5 * share, lw=1
            )
    axes.scatter(*points.T, s=18, color="black", label="frames $h_i$")
    axes.scatter(*tokens.T, s=90, marker="s", color="#d55e00", label="tokens $z_j$")
    axes.quiver(*points.T, *arrows.T, angles="xy", scale_units="xy", scale=0.25, width=0.006, color="#009e73")
    axes.scatter([], [], marker=r"$\rightarrow$", color="#009e73", label="− gradient")
    axes.legend(fontsize=8)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    save(figure, "gradient")


def family() -> None:
    """The presets' plans for the same pair of sequences."""
    frames, tokens, owner = example(noise=2.2)
    sizes = torch.tensor([len(frames)]), torch.tensor([len(tokens)])
    entropic: dict[str, object] = {"method": "mirror", "alpha": 0.0}
    order = order_prior(*sizes)
    presets: dict[str, dict[str, object]] = {
        "ot": entropic,
        "tot": entropic | {"prior": order, "epsilon": 0.1, "epsilon_relative": False},
        "uot": entropic | {"rho_acoustic": 0.1},
        "gmot": {"alpha": 0.5},
        "gmot-t": {"alpha": 0.5, "prior": order},
        "gmot-u": {"alpha": 0.5, "rho_acoustic": 0.1},
    }
    figure, axes = plt.subplots(2, 3, figsize=(11, 3.6), layout="constrained")
    for axis, (name, options) in zip(axes.flat, presets.items(), strict=True):
        picture(axis, solve(frames, tokens, **options).plan[0], name, owner)
    save(figure, "family")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for draw in (coupling, twins, rows, silence, gradient, family):
        draw()
        print(draw.__name__, flush=True)
