"""A batch of fused Gromov-Wasserstein problems: checked, masked, normalised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_gmot.transport.checks import check_lengths, check_plan, check_symmetry, check_weights
from espnet_gmot.transport.edges import Edges
from espnet_gmot.transport.masks import TINY, marginals
from espnet_gmot.transport.options import Options

__all__ = ["Problem", "make_problem"]


@dataclass(frozen=True)
class Problem:
    """A masked batch without gradient: B samples, T frames, U tokens; weights are 0 on padding."""

    cost: Tensor  # (B, T, U)
    prior: Tensor | None  # (B, T, U)
    acoustic: Edges  # (B, T, T)
    linguistic: Edges  # (B, U, U)
    acoustic_weights: Tensor  # (B, T), sums 1, or 0 for an empty sample
    linguistic_weights: Tensor  # (B, U)
    acoustic_lengths: Tensor  # (B,)
    linguistic_lengths: Tensor  # (B,)
    initial_plan: Tensor | None  # (B, T, U)
    options: Options

    def support(self) -> Tensor:
        """Where a plan may have mass, (B, T, U) bool."""
        return (self.acoustic_weights > 0)[:, :, None] & (self.linguistic_weights > 0)[:, None, :]

    def linear_cost(self) -> Tensor:
        """(1 − α)·cost + prior on the support, 0 elsewhere, (B, T, U)."""
        linear = (1.0 - self.options.alpha) * self.cost
        if self.prior is not None:
            linear = linear + self.prior
        return linear.masked_fill_(~self.support(), 0.0)

    @staticmethod
    def moments(edges: Edges, weights: Tensor) -> tuple[Tensor, Tensor]:
        """wᵀ(A∘A)w and wᵀAw, (B,) each."""
        mean = (edges.apply(weights.unsqueeze(-1)).squeeze(-1) * weights).sum(-1)
        return (edges.hadamard(edges, weights) * weights).sum(-1), mean

    def scale(self, linear: Tensor) -> Tensor:
        """Mean magnitude of the effective cost under the product plan, (B,): the unit of a relative ε."""
        a, b = self.acoustic_weights, self.linguistic_weights
        scale = torch.einsum("bt,btu,bu->b", a, linear.abs(), b)
        if self.options.alpha > 0.0:
            (square, mean), (other, centre) = self.moments(self.acoustic, a), self.moments(self.linguistic, b)
            scale = scale + 2.0 * self.options.alpha * (square + other - 2.0 * mean * centre).clamp(min=0.0)
        return torch.where(scale > TINY, scale, torch.ones_like(scale))


def make_problem(
    cost: Tensor,
    acoustic: Edges,
    linguistic: Edges,
    acoustic_lengths: Tensor,
    linguistic_lengths: Tensor,
    acoustic_weights: Tensor | None,
    linguistic_weights: Tensor | None,
    prior: Tensor | None,
    initial_plan: Tensor | None,
    options: Options,
) -> Problem:
    """Check every argument, raise half precision to float32, mask and normalise the weights.

    Raises:
        ValueError: names the argument, what it is and what was expected.
    """
    if cost.dim() != 3:
        raise ValueError(f"cost has shape {tuple(cost.shape)}; expected (B, T, U)")
    batch, frames, tokens = cost.shape
    if 0 in cost.shape:
        raise ValueError(
            f"cost has shape {tuple(cost.shape)}; expected at least one sample, frame and token (lengths may be 0)"
        )
    for name, edges, size in (("acoustic_edges", acoustic, frames), ("linguistic_edges", linguistic, tokens)):
        if edges.shape != (batch, size):
            raise ValueError(f"{name} have (B, N) = {tuple(edges.shape)}; expected {(batch, size)} from the cost")
    check_plan("prior", prior, cost.shape)
    check_plan("initial_plan", initial_plan, cost.shape)
    dtype = torch.float64 if cost.dtype == torch.float64 else torch.float32
    device = cost.device
    weights, lengths = [], []
    for side, size, edges, length, weight in (
        ("acoustic", frames, acoustic, acoustic_lengths, acoustic_weights),
        ("linguistic", tokens, linguistic, linguistic_lengths, linguistic_weights),
    ):
        check_lengths(f"{side}_lengths", length, batch, size)
        check_weights(f"{side}_weights", weight, length, size)
        if options.alpha > 0.0:  # else nobody looks at them
            check_symmetry(f"{side}_edges", edges, length)
        lengths.append(length.to(device=device, dtype=torch.long).clamp(0, size))
        weights.append(marginals(weight, lengths[-1], size, dtype))
    # a sample with one empty side has nothing to transport
    full = ((weights[0].sum(-1) > 0) & (weights[1].sum(-1) > 0)).to(dtype).unsqueeze(-1)
    return Problem(
        cost=cost.detach().to(dtype),
        prior=None if prior is None else prior.detach().to(dtype),
        acoustic=acoustic.detach().to(dtype),
        linguistic=linguistic.detach().to(dtype),
        acoustic_weights=weights[0] * full,
        linguistic_weights=weights[1] * full,
        acoustic_lengths=lengths[0],
        linguistic_lengths=lengths[1],
        initial_plan=None if initial_plan is None else initial_plan.detach().to(dtype),
        options=options,
    )
