"""The one mask."""

import torch

from espnet_gmot.transport.masks import valid


def test_valid_places_lie_before_the_length() -> None:
    assert valid(torch.tensor([3, 0, 1]), 3).tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert valid(torch.zeros(0, dtype=torch.long), 4).shape == (0, 4) and valid(torch.tensor([2]), 0).shape == (1, 0)
