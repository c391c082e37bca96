"""What a caller may have got wrong, said by the argument's name before anything is computed.

Shapes and types are checked on every device; values (lengths, signs, symmetry) on the CPU alone, because reading them
from a GPU would make the host wait for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from espnet_gmot.transport.edges import DenseEdges, Edges, SumEdges
from espnet_gmot.transport.masks import valid

__all__ = ["check_lengths", "check_plan", "check_symmetry", "check_tensors", "check_weights"]

ASYMMETRY = {torch.float16: 2e-2, torch.bfloat16: 2e-2}  # relative; 1e-3 for wider types: the value is as far off then


def check_tensors(**arguments: Tensor | None) -> None:
    """Every argument is a tensor, or None where it may be left out.

    Raises:
        ValueError: one is of another library; names it.
    """
    for name, value in arguments.items():
        if value is not None and not isinstance(value, Tensor):
            raise ValueError(f"{name} is a {type(value).__name__}; expected a tensor: torch.as_tensor makes one")


def check_plan(name: str, plan: Tensor | None, shape: torch.Size) -> None:
    """A prior or a plan has the cost's shape (B, T, U).

    Raises:
        ValueError: it has another.
    """
    if plan is not None and plan.shape != shape:
        raise ValueError(f"{name} has shape {tuple(plan.shape)}; expected {tuple(shape)} as the cost")


def check_lengths(name: str, lengths: Tensor, batch: int, size: int) -> None:
    """(B,) whole numbers from 0 to `size`.

    Raises:
        ValueError: another shape or type, or on the CPU a number that the cost has no room for.
    """
    if lengths.shape != (batch,):
        raise ValueError(f"{name} has shape {tuple(lengths.shape)}; expected ({batch},)")
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise ValueError(f"{name} is {lengths.dtype}; expected whole numbers, such as torch.int64")
    if lengths.device.type == "cpu" and not 0 <= int(lengths.min()) <= int(lengths.max()) <= size:
        least, most = int(lengths.min()), int(lengths.max())
        raise ValueError(f"{name} reaches from {least} to {most}; expected 0 to {size}, the places in the cost")


def check_weights(name: str, weights: Tensor | None, lengths: Tensor, size: int) -> None:
    """(B, N) non-negative numbers, anything on padding.

    Raises:
        ValueError: another shape, or on the CPU a negative number.
    """
    if weights is None:
        return
    if weights.shape != (len(lengths), size):
        raise ValueError(f"{name} has shape {tuple(weights.shape)}; expected ({len(lengths)}, {size})")
    if weights.device.type == "cpu" and bool((weights < 0).any()):
        least = float(weights.masked_fill(~valid(lengths.to(weights.device), size), 0.0).min())
        if least < 0:
            raise ValueError(f"{name} holds {least:g}; expected non-negative numbers")


def check_symmetry(name: str, edges: Edges, lengths: Tensor) -> None:
    """Dense edges, or dense terms of a sum, are symmetric within each length: ‖A·x − Aᵀ·x‖ for one random x.

    Raises:
        ValueError: they are not, on the CPU.
    """
    if isinstance(edges, SumEdges):
        for _, term in edges.terms:
            check_symmetry(name, term, lengths)
    if not isinstance(edges, DenseEdges) or edges.matrix.device.type != "cpu":
        return
    limit = ASYMMETRY.get(edges.matrix.dtype, 1e-3)
    matrix = edges.matrix.detach() if edges.matrix.dtype == torch.float64 else edges.matrix.detach().float()
    size = matrix.shape[1]
    x = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    if bool((_apart(matrix @ x, x @ matrix) <= limit).all()):
        return
    inside = valid(lengths.to("cpu"), size)  # unless padding alone differs
    masked = (x * inside)[:, :, None]
    far = _apart(*((product @ masked).squeeze(2) * inside for product in (matrix, matrix.mT)))
    if bool((far > limit).any()):
        sample = int(far.argmax())
        raise ValueError(
            f"{name} is not symmetric: sample {sample} differs from its transpose by {100 * float(far[sample]):.2g} %; "
            "expected A[i, k] = A[k, i]: take (A + A.mT) / 2"
        )


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """‖one − other‖ relative to their mean norm, (B,)."""
    apart: Tensor = 2.0 * (one - other).norm(dim=1) / (one.norm(dim=1) + other.norm(dim=1)).clamp(min=1e-30)
    return apart
