"""Couplings without transport: shares of frames, order, quantity and padding."""

import pytest
import torch

from espnet_gmot.pooling import CIF, Attention

LENGTHS, TOKENS = torch.tensor([9, 4]), torch.tensor([3, 2])


@pytest.mark.parametrize("kind", [Attention, CIF])
def test_columns_sum_to_one_over_valid_frames(kind: type) -> None:
    plan, _ = kind(8)(torch.randn(2, 9, 8), LENGTHS, TOKENS, 5)
    assert plan.shape == (2, 9, 5)
    expected = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    torch.testing.assert_close(plan.sum(1), expected, atol=1e-5, rtol=0)
    assert plan[1, 4:].abs().max() == 0 and plan.min() >= 0


def test_cif_keeps_the_order_and_counts_the_tokens() -> None:
    cif = CIF(4)
    plan, quantity = cif(torch.randn(1, 9, 4), torch.tensor([9]), torch.tensor([3]), 3)
    centres = (plan * torch.arange(9.0)[None, :, None]).sum(1)[0]
    assert centres[0] < centres[1] < centres[2] and quantity > 0
    with torch.no_grad():  # every frame weighs 1/2: eight frames are four tokens, two frames each
        cif.weight.weight.zero_()
        cif.weight.bias.zero_()
    plan, quantity = cif(torch.randn(1, 8, 4), torch.tensor([8]), torch.tensor([4]), 4)
    assert quantity.item() == pytest.approx(0)
    torch.testing.assert_close(plan[0], torch.eye(4).repeat_interleave(2, 0) / 2)


def test_attention_depends_on_the_frames() -> None:
    attention = Attention(8)
    nodes = torch.randn(1, 9, 8)
    plan, quantity = attention(nodes, torch.tensor([9]), torch.tensor([3]), 3)
    other, _ = attention(nodes.flip(1), torch.tensor([9]), torch.tensor([3]), 3)
    assert not torch.allclose(plan, other, atol=1e-4) and quantity.item() == 0
