"""Several layers of the teacher become one, by weights that are learned."""

import torch

from espnet_gmot.transport.edges import unit_vectors


class LayerMix(torch.nn.Module):
    """Softmax-weighted sum of a teacher's layers, as ELMo (arXiv 1802.05365) and SUPERB (arXiv 2105.01051) mix theirs.

    Of each row the direction alone enters the sum: costs, edges and alignment are made of cosines, so a layer whose
    rows are long must not outweigh the others, and all weight on one layer is that layer itself. Weights are positive
    and sum to one over fixed layers, so the teacher can't be made trivial; but nothing keeps the loss from preferring
    the layer that is the easiest to match.

    Args:
        layers: L, how many; training starts from equal weights.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(layers))  # zeros also where ESPnet's `init: …` has been

    @property
    def weights(self) -> torch.Tensor:
        """(L,) positive, sum 1."""
        return self.logits.softmax(0)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Mix layers side by side, (B, U, L * D), to (B, U, D)."""
        layers = unit_vectors(rows.unflatten(-1, (self.logits.numel(), -1)))
        return torch.einsum("l,buld->bud", self.weights, layers)
