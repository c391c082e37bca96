"""Couplings without transport: shares of frames, order, quantity and padding."""

import math

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


def test_attention_is_a_softmax_over_the_valid_frames_by_the_formula() -> None:
    attention, nodes = Attention(5), torch.randn(2, 9, 5)
    plan, quantity = attention(nodes, LENGTHS, TOKENS, 3)

    def clock(place: int, length: int) -> torch.Tensor:
        """Sines, then cosines, of the relative position, cut to the width."""
        angles = [math.pi * place / length * 1.5**octave for octave in range(3)]
        return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)][:5])

    expected = torch.zeros(2, 9, 3)
    for sample, (frames, tokens) in enumerate(zip(LENGTHS.tolist(), TOKENS.tolist(), strict=True)):
        keys = [attention.key(nodes[sample, t] + clock(t, frames)) for t in range(frames)]
        for token in range(tokens):
            query = attention.query(clock(token, tokens))
            expected[sample, :frames, token] = (torch.stack(keys) @ query / math.sqrt(5)).softmax(0)
    torch.testing.assert_close(plan, expected, atol=1e-6, rtol=1e-5)
    assert quantity.tolist() == [0.0, 0.0]


def test_cif_fires_by_the_formula() -> None:
    """Frame t covers [before, before + weight] of the tokens' line; a token's share of it is the overlap."""
    cif, nodes = CIF(5), 2 * torch.randn(2, 9, 5)
    plan, quantity = cif(nodes, LENGTHS, TOKENS, 4)
    for sample, (frames, tokens) in enumerate(zip(LENGTHS.tolist(), TOKENS.tolist(), strict=True)):
        weights = torch.sigmoid(cif.weight(nodes[sample, :frames]))[:, 0].tolist()
        gathered, before, expected = sum(weights), 0.0, torch.zeros(9, 4)
        for t, weight in enumerate(weights):
            end = before + weight * tokens / gathered
            for token in range(tokens):
                expected[t, token] = max(0.0, min(end, token + 1) - max(before, token))
            before = end
        torch.testing.assert_close(plan[sample], expected, atol=1e-5, rtol=0)
        assert quantity[sample].item() == pytest.approx(((gathered - tokens) / tokens) ** 2, rel=1e-4)
