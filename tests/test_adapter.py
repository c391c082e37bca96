"""The map into the teacher's space."""

import pytest
import torch

from espnet_gmot.adapter import Adapter
from espnet_gmot.errors import UserError


@pytest.mark.parametrize(("kind", "expected"), [("linear", [(4, 6), (4,)]), ("mlp", [(3, 6), (3,), (4, 3), (4,)])])
def test_each_kind_has_its_parameters_and_ends_normalised(kind: str, expected: list[tuple[int, ...]]) -> None:
    adapter = Adapter(6, 4, kind, hidden=3)
    assert [tuple(parameter.shape) for parameter in adapter.map.parameters()] == expected
    out = adapter(torch.randn(2, 5, 6))
    torch.testing.assert_close(out.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
    assert out.shape == (2, 5, 4)


def test_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="adapter: unknown value 'conv': known are linear, mlp"):
        Adapter(6, 4, "conv")
