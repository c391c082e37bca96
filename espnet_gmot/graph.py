"""Features and lengths become a graph: nodes, edges and the weight of each node."""

from dataclasses import dataclass

import torch

from espnet_gmot.transport import CosineEdges, Edges, SumEdges, TemporalEdges
from espnet_gmot.transport.masks import valid


@dataclass(frozen=True)
class Graph:
    """A batch of graphs whose nodes are feature vectors.

    Attributes:
        nodes: (B, N, D) features, anything past a length.
        lengths: (B,) nodes of each sample.
        weights: (B, N) how much each node counts, anything past a length, or None for all alike.
    """

    nodes: torch.Tensor
    lengths: torch.Tensor
    weights: torch.Tensor | None = None

    def edges(self, feature: float = 1.0, temporal: float = 0.0, radius: int | None = None) -> Edges:
        """The weighted sum of feature edges 1 - cos(h_i, h_k) and temporal edges |i - k| / length.

        Args:
            feature: weight of the feature edges.
            temporal: weight of the temporal edges.
            radius: None, or the nodes from which all pairs are equally far: min(|i - k|, radius) / radius.
        """
        time = TemporalEdges(self.lengths, self.nodes.shape[1], radius)
        terms: list[tuple[float, Edges]] = []
        if feature > 0:
            terms.append((feature, CosineEdges(self.nodes)))
        if temporal > 0:
            terms.append((temporal, time))
        if not terms:  # alpha is 0: the solver never looks at them
            terms.append((0.0, time))
        return terms[0][1] if terms[0][0] == 1 and len(terms) == 1 else SumEdges(terms)

    def pooled(self, count: int) -> "Graph":
        """The graph whose nodes are the averages of `count` neighbours each, and weigh what these weigh together.

        Args:
            count: nodes that become one; the last one averages what is left.
        """
        if count == 1:
            return self
        batch, size, width = self.nodes.shape
        inside = valid(self.lengths, size)
        weights = inside.to(self.nodes.dtype) if self.weights is None else self.weights.masked_fill(~inside, 0.0)
        pad = -size % count
        groups = torch.nn.functional.pad(weights, (0, pad)).view(batch, -1, count)
        nodes = torch.nn.functional.pad(self.nodes, (0, 0, 0, pad)).view(batch, -1, count, width)
        total = groups.sum(-1)
        mean = (nodes * groups[..., None]).sum(2) / total.clamp(min=1e-8)[..., None]
        return Graph(mean, (self.lengths + count - 1) // count, total)
