"""Edges of a graph, by their definition; averaging is tested beside the loss."""

import pytest
import torch

from espnet_gmot.graph import Graph
from espnet_gmot.transport import CosineEdges, cosine_edges, temporal_edges

LENGTHS = torch.tensor([6, 4])


@pytest.mark.parametrize(
    ("weights", "feature", "temporal", "radius"),
    [((1.0, 0.0), 1.0, 0.0, None), ((2.0, 0.0), 2.0, 0.0, None), ((0.0, 0.5), 0.0, 0.5, 3), ((0.3, 1.0), 0.3, 1.0, 2)],
)
def test_edges_are_the_weighted_sum(weights: tuple, feature: float, temporal: float, radius: int | None) -> None:
    nodes = torch.randn(2, 6, 4)
    edges = Graph(nodes, LENGTHS).edges(*weights, radius)
    expected = feature * cosine_edges(nodes) + temporal * temporal_edges(LENGTHS, 6, radius=radius)
    torch.testing.assert_close(edges.dense(), expected, atol=1e-6, rtol=1e-5)
    assert isinstance(edges, CosineEdges) == (weights == (1.0, 0.0))  # the plain kind where it is enough


def test_no_weight_gives_edges_of_zero() -> None:
    assert Graph(torch.randn(2, 6, 4), LENGTHS).edges(0.0, 0.0).dense().abs().max() == 0


def test_pooling_by_one_is_the_graph_itself() -> None:
    graph = Graph(torch.randn(2, 6, 4), LENGTHS)
    assert graph.pooled(1) is graph


def test_pooled_frames_weigh_what_theirs_did() -> None:
    """One left over is no whole group; and all alike is what weights of one are."""
    nodes, lengths = torch.randn(2, 6, 4), torch.tensor([5, 4])
    graph, ones = Graph(nodes, lengths).pooled(4), Graph(nodes, lengths, torch.ones(2, 6)).pooled(4)
    assert graph.weights.tolist() == ones.weights.tolist() == [[4.0, 1.0], [4.0, 0.0]]
    torch.testing.assert_close(graph.nodes, ones.nodes)
