"""Sinkhorn's early stop: not before the second update, which is the first that knows an error."""

import math
from collections.abc import Callable

import pytest
import torch

from espnet_gmot.transport.sinkhorn import sinkhorn_log, sinkhorn_scaling


@pytest.mark.parametrize("solve", [sinkhorn_log, sinkhorn_scaling])
def test_whoever_takes_any_error_stops_after_the_second_update(solve: Callable) -> None:
    kernel, epsilon = -torch.rand(1, 6, 4) / 0.1, torch.full((1, 1, 1), 0.1)
    start = torch.full((1, 6, 1), -math.log(6)), torch.full((1, 1, 4), -math.log(4))
    zeros = torch.zeros(1, 6, 1), torch.zeros(1, 1, 4)
    found = {}
    for name, count, slack in (("one", 1, None), ("two", 2, None), ("stopped", 50, torch.full((1,), math.inf))):
        found[name] = solve(kernel, *start, *zeros, epsilon, 0.3, math.inf, count, slack)[:2]
    torch.testing.assert_close(found["stopped"], found["two"])
    assert not torch.allclose(found["one"][0], found["two"][0], atol=1e-3)
