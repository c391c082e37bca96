"""What is trained without the transfer is what stock ESPnet trains, bit for bit, on every host."""

from collections.abc import Callable

import pytest
import torch

from tests.hosts.conftest import ENCODERS, HOSTS, QUIET

pytestmark = pytest.mark.espnet
DROPOUT = dict.fromkeys(QUIET, 0.2)
MASKS = {"apply_freq_mask": True, "freq_mask_width_range": [0, 2], "time_mask_width_range": [0, 4]}
SPECAUG = {"specaug": "specaug", "specaug_conf": {"apply_time_warp": True, "apply_time_mask": True, **MASKS}}
STEPS = 3


def train(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Losses and gradients of a few steps, all random masks drawn from one seed."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses, gradients = [], []
    torch.manual_seed(6)
    for _ in range(STEPS):
        loss, _, _ = model(**{name: tensor.clone() for name, tensor in batch.items()})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        gradients += [parameter.grad.clone() for parameter in model.parameters()]
    return losses, gradients


@pytest.mark.parametrize("encoder", [name for name, options in ENCODERS.items() if options.items() >= QUIET.items()])
@pytest.mark.parametrize("host", HOSTS)
def test_without_weights_training_is_stock_bit_for_bit(
    build: Callable, batch: dict[str, torch.Tensor], host: str, encoder: str
) -> None:
    """With dropout and SpecAugment: the plugin draws no random number either, at no step."""
    random = {"encoder_conf": {**ENCODERS[encoder], **DROPOUT}, **SPECAUG}
    stock = build(host, encoder, model="espnet", **random)
    # the stream `teacher` may come along: without weights nobody reads it
    model = build(host, encoder, gmot_conf={"preset": "ctc"}, **random)
    speech_and_text = {name: tensor for name, tensor in batch.items() if not name.startswith("teacher")}
    # once for nothing: in the first call of the process, ESPnet's own transducer loss rounds its gradients otherwise
    train(build(host, encoder, model="espnet", **random), speech_and_text)
    expected, found = train(stock, speech_and_text), train(model, batch)
    assert len(set(expected[0])) == STEPS and len(expected[1]) == STEPS * len(list(stock.parameters()))
    for theirs, ours in zip(expected, found, strict=True):
        assert all(torch.equal(*pair) for pair in zip(theirs, ours, strict=True))
    assert model.state_dict().keys() == stock.state_dict().keys()
    assert all(torch.equal(ours, stock.state_dict()[name]) for name, ours in model.state_dict().items())
