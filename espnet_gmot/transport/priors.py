"""Temporal-order priors: additive linear costs that prefer monotonic alignments."""

from __future__ import annotations

import torch
from torch import Tensor

from espnet_gmot.transport.checks import check_weights
from espnet_gmot.transport.masks import marginals, valid

__all__ = ["diagonal_prior", "order_prior"]


def order_prior(
    acoustic_lengths: Tensor,
    linguistic_lengths: Tensor,
    frames: int | None = None,
    tokens: int | None = None,
    *,
    lambda1: float = 50.0,
    lambda2: float = 0.1,
    delta: float = 1.0,
    acoustic_weights: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Order-preserving Wasserstein prior of Su and Hua [1]_ as an additive cost.

    Their kernel K = P∘exp((S − D)/λ2), with S = λ1/(x² + 1), x = i/T − j/U, P the Gaussian of the distance
    d = |x|/sqrt(1/T² + 1/U²) to the diagonal with deviation δ, is exp(−(D + prior)/λ2) for
    prior = −S − λ2·log P. Constants that no plan of fixed mass feels are left out, so that it is 0 on the diagonal:
    prior = λ1·x²/(1 + x²) + λ2·d²/(2δ²).

    i/T is the mass of the frames up to i where all weigh alike. Where they don't, their mass takes its place, so that
    the diagonal runs along the monotone plan of these marginals, and frames of no weight (silence) take no time. They
    still count in the diagonal's thickness, 1/T.

    As in their formula i and j count from one: the prior's zero is where a token *ends*. Exact marginals don't feel
    that; with relaxed ones a token's mass lies up to half a token late.

    Args:
        acoustic_lengths: (B,) frames T of each sample.
        linguistic_lengths: (B,) tokens U of each sample.
        frames: padded number of frames; the longest by default.
        tokens: padded number of tokens; the longest by default.
        lambda1: weight of the inverse difference moment, in units of the cost.
        lambda2: weight of the Gaussian, in units of the cost (their ε).
        delta: deviation of the Gaussian, in units of the diagonal's thickness.
        acoustic_weights: (B, frames) non-negative node weights; all alike by default.
        dtype: floating type of the result.

    Returns:
        (B, frames, tokens), 0 on padding.

    References:
        .. [1] Su and Hua, "Order-preserving Wasserstein distance for sequence matching", CVPR 2017.
    """
    if delta <= 0:
        raise ValueError(f"delta is {delta}; expected a positive number")
    offset, inside, reach = _offsets(acoustic_lengths, linguistic_lengths, frames, tokens, acoustic_weights, dtype)
    square = offset.square()
    prior = lambda1 * square / (1.0 + square) + lambda2 * square / (2.0 * delta * delta * reach)
    return prior * inside


def diagonal_prior(
    acoustic_lengths: Tensor,
    linguistic_lengths: Tensor,
    frames: int | None = None,
    tokens: int | None = None,
    *,
    width: float = 0.1,
    weight: float = 1.0,
    acoustic_weights: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A band around the diagonal: free within |x| ≤ width, then rising by `weight` per unit of x.

    x = (i − ½)/T − (j − ½)/U is how far the middles of a frame and of a token are apart, as shares of the sequences.

    Args:
        acoustic_lengths: (B,) frames T of each sample.
        linguistic_lengths: (B,) tokens U of each sample.
        frames: padded number of frames; the longest by default.
        tokens: padded number of tokens; the longest by default.
        width: half width of the free band, as a fraction of the sequence, in [0, 1].
        weight: slope outside the band, in units of the cost.
        acoustic_weights: (B, frames) non-negative node weights, whose mass up to a frame's middle replaces (i − ½)/T;
            all alike by default.
        dtype: floating type of the result.

    Returns:
        (B, frames, tokens), 0 inside the band and on padding.
    """
    if not 0.0 <= width <= 1.0:
        raise ValueError(f"width is {width}; expected a fraction in [0, 1]")
    sizes = acoustic_lengths, linguistic_lengths, frames, tokens
    offset, inside, _ = _offsets(*sizes, acoustic_weights, dtype, back=0.5)
    return weight * (offset.abs() - width).clamp(min=0.0) * inside


def _offsets(
    acoustic_lengths: Tensor,
    linguistic_lengths: Tensor,
    frames: int | None,
    tokens: int | None,
    acoustic_weights: Tensor | None,
    dtype: torch.dtype,
    back: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """x, the valid block and 1/T² + 1/U², each broadcastable to (B, frames, tokens).

    x = (i − back)/T − (j − back)/U, counted from one: of the ends of frames and tokens, or with ½ of their middles.
    """
    frames = int(acoustic_lengths.max()) if frames is None else frames
    tokens = int(linguistic_lengths.max()) if tokens is None else tokens
    device = acoustic_lengths.device
    big_t = acoustic_lengths.to(dtype).clamp(min=1)[:, None, None]
    big_u = linguistic_lengths.to(dtype).clamp(min=1)[:, None, None]
    if acoustic_weights is None:  # CUDA has no deterministic cumsum: none where there is nothing to sum
        passed = (torch.arange(1, frames + 1, device=device, dtype=dtype)[None, :, None] - back) / big_t
    else:
        check_weights("acoustic_weights", acoustic_weights, acoustic_lengths, frames)
        mass = marginals(acoustic_weights, acoustic_lengths, frames, dtype)
        passed = (mass.cumsum(1) - back * mass)[:, :, None]
    j = torch.arange(1, tokens + 1, device=device, dtype=dtype)[None, None, :] - back
    inside = valid(acoustic_lengths, frames)[:, :, None] & valid(linguistic_lengths, tokens)[:, None, :]
    return passed - j / big_u, inside.to(dtype), big_t**-2 + big_u**-2
