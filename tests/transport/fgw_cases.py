"""Problems that the transport tests share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_gmot.transport import cosine_cost, cosine_edges


@dataclass
class Case:
    """A padded batch of features with its lengths."""

    acoustic: Tensor
    linguistic: Tensor
    acoustic_lengths: Tensor
    linguistic_lengths: Tensor

    def dense(self) -> tuple[Tensor, ...]:
        """Positional arguments of fused_gromov_wasserstein, dense."""
        return (
            cosine_cost(self.acoustic, self.linguistic),
            cosine_edges(self.acoustic),
            cosine_edges(self.linguistic),
            self.acoustic_lengths,
            self.linguistic_lengths,
        )

    def numpy(self, i: int) -> tuple:
        """Cost and edges of one sample without padding, float64."""
        t, u = int(self.acoustic_lengths[i]), int(self.linguistic_lengths[i])
        cost, a, b = (x[i].double() for x in self.dense()[:3])
        return cost[:t, :u].numpy(), a[:t, :t].numpy(), b[:u, :u].numpy()


def speech_like(
    batch: int = 6,
    frames: tuple[int, int] = (12, 30),
    tokens: tuple[int, int] = (3, 8),
    width: int = 16,
    signal: float = 0.8,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Case:
    """Frames that follow their tokens in order, with noise; zero padding."""
    g = torch.Generator().manual_seed(seed)
    t = torch.randint(frames[0], frames[1] + 1, (batch,), generator=g)
    u = torch.randint(tokens[0], tokens[1] + 1, (batch,), generator=g)
    h = torch.randn(batch, frames[1], width, generator=g, dtype=dtype)
    z = torch.randn(batch, tokens[1], width, generator=g, dtype=dtype)
    for b in range(batch):
        index = (torch.arange(frames[1]) * u[b] // t[b]).clamp(max=int(u[b]) - 1)
        h[b] += signal * z[b][index]
        h[b, t[b] :] = 0
        z[b, u[b] :] = 0
    return Case(h, z, t, u)
