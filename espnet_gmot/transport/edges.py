"""Edges inside a sequence: the two graphs that Gromov-Wasserstein compares, dense or factored.

An edge set is a symmetric matrix per sample, A (B, N, N). The solver needs three things of it: the product A·X, the
vector (A∘A)·w, and the gradient of the transport energy with respect to whatever A was made from. Factored edges
give all three without forming A: cosine edges from the features (time and memory linear in N), temporal edges by
prefix sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["CosineEdges", "DenseEdges", "Edges", "SumEdges", "TemporalEdges", "as_edges", "unit_vectors"]


def unit_vectors(features: Tensor, eps: float = 1e-12) -> Tensor:
    """Vectors of length one; vectors no longer than `eps` become zero and get no gradient.

    Args:
        features: (..., D); half precision is raised to float32.
        eps: the length under which a direction is noise.

    Returns:
        (..., D) in float32 or float64.
    """
    features = features if features.dtype == torch.float64 else features.float()
    square = features.square().sum(-1, keepdim=True)
    known = square > eps * eps
    inverse = torch.where(known, square, torch.ones_like(square)).rsqrt()
    return features * (inverse * known)


class Edges:
    """Interface of every edge set; shapes: B samples, N nodes, U columns."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The leaves that gradients are wanted for."""
        raise NotImplementedError

    def with_tensors(self, tensors: Sequence[Tensor]) -> Edges:
        """The same edges made from other leaves."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int]:
        """(B, N)."""
        raise NotImplementedError

    def apply(self, columns: Tensor) -> Tensor:
        """A·columns; columns (B, N, U) → (B, N, U)."""
        raise NotImplementedError

    def dense(self) -> Tensor:
        """A itself, (B, N, N)."""
        raise NotImplementedError

    def hadamard(self, other: Edges, weights: Tensor) -> Tensor:
        """(A∘A')·weights; weights (B, N) → (B, N). Whichever of the two kinds knows the other computes it.

        Raises:
            TypeError: neither does.
        """
        product = self.hadamard_with(other, weights)
        if product is None:
            product = other.hadamard_with(self, weights)
        if product is None:
            raise TypeError(
                f"{type(self).__name__} and {type(other).__name__} don't know how to multiply: one of them needs a "
                "hadamard_with that takes the other"
            )
        return product

    def hadamard_with(self, other: Edges, weights: Tensor) -> Tensor | None:
        """As `hadamard` for the kinds that this one knows, itself among them; None for the rest."""
        return None

    def energy(self, weights: Tensor, plan: Tensor, carried: Tensor) -> Tensor:
        """wᵀ(A∘A)w − 2⟨A·plan, carried⟩, the part of the squared-loss GW energy that depends on A; (B,)."""
        square = (self.hadamard(self, weights) * weights).sum(-1)
        return square - 2.0 * (self.apply(plan) * carried).sum((-1, -2))

    def pullback(self, scale: Tensor, weights: Tensor, plan: Tensor, carried: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of Σ scale·energy with respect to `tensors`; scale (B,)."""
        if not self.tensors:
            return ()
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_() for t in self.tensors]
            total = (self.with_tensors(leaves).energy(weights, plan, carried) * scale).sum()
            return torch.autograd.grad(total, leaves)

    def detach(self) -> Edges:
        """The same edges without gradient."""
        return self.with_tensors([t.detach() for t in self.tensors])

    def to(self, dtype: torch.dtype) -> Edges:
        """The same edges with leaves of another precision (differentiable)."""
        return self.with_tensors([t.to(dtype) for t in self.tensors])


class DenseEdges(Edges):
    """Edges given as a matrix, (B, N, N), symmetric."""

    def __init__(self, matrix: Tensor) -> None:
        if matrix.dim() != 3 or matrix.shape[1] != matrix.shape[2]:
            raise ValueError(f"edges have shape {tuple(matrix.shape)}; expected (B, N, N)")
        self.matrix = matrix

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The matrix, (B, N, N)."""
        return (self.matrix,)

    def with_tensors(self, tensors: Sequence[Tensor]) -> DenseEdges:
        """Edges of another matrix (B, N, N)."""
        return DenseEdges(tensors[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(B, N)."""
        return self.matrix.shape[0], self.matrix.shape[1]

    def apply(self, columns: Tensor) -> Tensor:
        """A·columns, (B, N, U), in O(N²U)."""
        return self.matrix @ columns

    def dense(self) -> Tensor:
        """The matrix itself, (B, N, N)."""
        return self.matrix

    def hadamard_with(self, other: Edges, weights: Tensor) -> Tensor:
        """Any kind that has a matrix, in O(N²)."""
        return ((self.matrix * other.dense()) @ weights.unsqueeze(-1)).squeeze(-1)

    def pullback(self, scale: Tensor, weights: Tensor, plan: Tensor, carried: Tensor) -> tuple[Tensor | None, ...]:
        """In closed form: one product of plans, no autograd."""
        # ∂/∂A = 2·A∘wwᵀ − 2·carried·planᵀ, made symmetric as A is
        cross = (carried * scale[:, None, None]) @ plan.mT
        outer = (scale[:, None] * weights)[:, :, None] * weights[:, None, :]
        return (2.0 * self.matrix * outer - cross - cross.mT,)


class CosineEdges(Edges):
    """A[i, k] = 1 − cos(h_i, h_k), kept as the features: rank D, never N × N.

    Args:
        features: (B, N, D). A zero vector (padding) is at distance 1 from everything, itself included.
    """

    def __init__(self, features: Tensor) -> None:
        if features.dim() != 3:
            raise ValueError(f"features have shape {tuple(features.shape)}; expected (B, N, D)")
        self.features = features
        self._unit: Tensor | None = None

    @property
    def unit(self) -> Tensor:
        """The features' directions, (B, N, D)."""
        if self._unit is None:
            self._unit = unit_vectors(self.features)
        return self._unit

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The features, (B, N, D)."""
        return (self.features,)

    def with_tensors(self, tensors: Sequence[Tensor]) -> CosineEdges:
        """Edges of other features (B, N, D)."""
        return CosineEdges(tensors[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(B, N)."""
        return self.features.shape[0], self.features.shape[1]

    def apply(self, columns: Tensor) -> Tensor:
        """A·columns, (B, N, U), in O(NDU)."""
        return columns.sum(1, keepdim=True) - self.unit @ (self.unit.mT @ columns)

    def dense(self) -> Tensor:
        """A itself, (B, N, N)."""
        return 1.0 - self.unit @ self.unit.mT

    def hadamard_with(self, other: Edges, weights: Tensor) -> Tensor | None:
        """Cosine edges in O(ND²) or O(N²D), whichever is less; temporal ones in O(ND)."""
        if isinstance(other, CosineEdges):
            ours, theirs = self.unit, other.unit
            if ours.shape[1] <= ours.shape[2]:  # N × N is the smaller way
                return torch.einsum("bij,bij,bj->bi", self.dense(), other.dense(), weights)
            # (1 − hh')∘(1 − gg') = 1 − hh' − gg' + (hh')∘(gg'), the last through HᵀWG (D × D)
            column = weights.unsqueeze(-1)
            mixed = ours.mT @ (theirs * column)
            linear = ours @ (ours.mT @ column) + theirs @ (theirs.mT @ column)
            return column.sum(1) - linear.squeeze(-1) + ((ours @ mixed) * theirs).sum(-1)
        if isinstance(other, TemporalEdges):
            whole = other.apply(weights.unsqueeze(-1)).squeeze(-1)
            return whole - (self.unit * other.apply(self.unit * weights.unsqueeze(-1))).sum(-1)
        return None


class TemporalEdges(Edges):
    """A[i, k] = |i − k| / length, or min(|i − k|, radius) / radius for the banded form; applied by prefix sums.

    Args:
        lengths: (B,) valid nodes of each sample.
        size: N, the padded length.
        radius: None, or the number of nodes beyond which all pairs are equally far (distance 1).
        dtype: floating type of the products.
    """

    def __init__(
        self, lengths: Tensor, size: int, radius: int | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        if radius is not None and radius < 1:
            raise ValueError(f"radius is {radius}; expected None or an integer of at least 1")
        self.lengths, self.size, self.radius, self.dtype = lengths, size, radius, dtype

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """None: time has no gradient."""
        return ()

    def with_tensors(self, tensors: Sequence[Tensor]) -> TemporalEdges:
        """The same edges."""
        return self

    def to(self, dtype: torch.dtype) -> TemporalEdges:
        """The same edges in another precision."""
        return TemporalEdges(self.lengths, self.size, self.radius, dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """(B, N)."""
        return self.lengths.shape[0], self.size

    @property
    def scale(self) -> Tensor:
        """The distance of two neighbours, (B,)."""
        lengths = self.lengths.to(self.dtype).clamp(min=1)
        return 1.0 / (lengths if self.radius is None else torch.full_like(lengths, float(self.radius)))

    def profile(self) -> Tensor:
        """The edge of two nodes as a function of their distance, (B, N)."""
        distance = torch.arange(self.size, device=self.lengths.device, dtype=self.dtype)
        if self.radius is not None:
            distance = distance.clamp(max=self.radius)
        return distance * self.scale[:, None]

    def apply(self, columns: Tensor) -> Tensor:
        """A·columns, (B, N, U), in O(NU) by prefix sums."""
        position = torch.arange(self.size, device=columns.device, dtype=columns.dtype)
        position = (position * self.scale.to(columns.dtype)[:, None]).unsqueeze(-1)
        if self.radius is None:
            mass, moment = columns.cumsum(1), (position * columns).cumsum(1)
            return position * (2 * mass - mass[:, -1:]) - 2 * moment + moment[:, -1:]
        # within the radius |p_i − p_k|, beyond it 1; `upto(x, s)` is the prefix sum over k ≤ i + s
        # (windows are differences of long sums: taken in double precision)
        far = self.radius
        mass = columns.cumsum(1, dtype=torch.float64)
        moment = (position * columns).cumsum(1, dtype=torch.float64)
        mass_low, mass_high = _upto(mass, -far), _upto(mass, far)
        moment_low, moment_high = _upto(moment, -far), _upto(moment, far)
        near = position * (2 * mass - mass_low - mass_high) - 2 * moment + moment_low + moment_high
        return (near + mass_low + mass[:, -1:] - mass_high).to(columns.dtype)

    def dense(self) -> Tensor:
        """A itself, (B, N, N)."""
        index = torch.arange(self.size, device=self.lengths.device)
        return self.profile()[:, (index[:, None] - index[None, :]).abs()]

    def hadamard_with(self, other: Edges, weights: Tensor) -> Tensor | None:
        """Temporal edges, in O(N log N)."""
        if isinstance(other, TemporalEdges):
            return _toeplitz(self.profile() * other.profile(), weights)
        return None


class SumEdges(Edges):
    """A weighted sum of edge sets of the same nodes.

    Args:
        terms: (weight, edges) pairs; weights are non-negative numbers.
    """

    def __init__(self, terms: Sequence[tuple[float, Edges]]) -> None:
        if not terms:
            raise ValueError("terms is empty; expected at least one (weight, edges) pair")
        for weight, edges in terms:
            if weight < 0:
                raise ValueError(f"an edge weight is {weight}; expected a non-negative number")
            if edges.shape != terms[0][1].shape:
                raise ValueError(f"edges have (B, N) = {edges.shape}; expected {terms[0][1].shape} as the first term")
        self.terms = [(float(weight), edges) for weight, edges in terms]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All terms' leaves, in order."""
        return tuple(t for _, edges in self.terms for t in edges.tensors)

    def with_tensors(self, tensors: Sequence[Tensor]) -> SumEdges:
        """The same weights on terms made from other leaves."""
        rest, terms = list(tensors), []
        for weight, edges in self.terms:
            count = len(edges.tensors)
            terms.append((weight, edges.with_tensors(rest[:count])))
            rest = rest[count:]
        return SumEdges(terms)

    def to(self, dtype: torch.dtype) -> SumEdges:
        """Every term in another precision."""
        return SumEdges([(weight, edges.to(dtype)) for weight, edges in self.terms])

    @property
    def shape(self) -> tuple[int, int]:
        """(B, N)."""
        return self.terms[0][1].shape

    def apply(self, columns: Tensor) -> Tensor:
        """A·columns, (B, N, U), term by term."""
        return sum((weight * edges.apply(columns) for weight, edges in self.terms), torch.zeros_like(columns))

    def dense(self) -> Tensor:
        """A itself, (B, N, N)."""
        first, *rest = [weight * edges.dense() for weight, edges in self.terms]
        for term in rest:
            first = first + term
        return first

    def hadamard_with(self, other: Edges, weights: Tensor) -> Tensor:
        """Any kind that its terms know, pair by pair."""
        theirs = other.terms if isinstance(other, SumEdges) else [(1.0, other)]
        total = torch.zeros_like(weights)
        for ours_weight, ours in self.terms:
            for their_weight, their in theirs:
                total = total + ours_weight * their_weight * ours.hadamard(their, weights)
        return total


def as_edges(edges: Tensor | Edges, name: str = "edges") -> Edges:
    """Dense tensors wrapped, `Edges` as they are; anything else is a ValueError that names the argument."""
    if isinstance(edges, Edges):
        return edges
    if isinstance(edges, Tensor):
        if edges.dim() != 3 or edges.shape[1] != edges.shape[2]:
            raise ValueError(f"{name} has shape {tuple(edges.shape)}; expected (B, N, N)")
        return DenseEdges(edges)
    raise ValueError(f"{name} is a {type(edges).__name__}; expected a (B, N, N) tensor or Edges")


def _upto(prefix: Tensor, shift: int) -> Tensor:
    """Prefix sums up to index i + shift, with nothing before the first and everything after the last."""
    size = prefix.shape[1]
    index = torch.arange(size, device=prefix.device) + shift
    taken = prefix[:, index.clamp(0, size - 1)]
    return taken * (index >= 0).to(prefix.dtype)[:, None]


def _toeplitz(profile: Tensor, weights: Tensor) -> Tensor:
    """Σ_k profile[|i − k|]·w_k by FFT; profile and weights (B, N)."""
    size = weights.shape[1]
    circulant = torch.cat([profile, profile.new_zeros(profile.shape[0], 1), profile[:, 1:].flip(1)], 1)
    spectrum = torch.fft.rfft(circulant.to(weights.dtype)) * torch.fft.rfft(weights, n=2 * size)
    product: Tensor = torch.fft.irfft(spectrum, n=2 * size)
    return product[:, :size]
