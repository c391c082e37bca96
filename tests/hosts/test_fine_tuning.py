"""Fine-tuning from a trained stock model, by ESPnet's own ``--init_param`` (asr.sh's ``--pretrained_model``)."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.hosts.conftest import HOSTS

pytestmark = pytest.mark.espnet


@pytest.mark.parametrize("host", HOSTS)
def test_every_stock_tensor_is_loaded_and_ours_alone_are_new(
    host: str, build: Callable[..., torch.nn.Module], batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    from espnet2.torch_utils.load_pretrained_model import load_pretrained_model

    stock = build(host, model="espnet")
    with torch.no_grad():
        for parameter in stock.parameters():  # a trained model is another one than a new model
            parameter.add_(0.01 * torch.randn_like(parameter))
    torch.save(stock.state_dict(), tmp_path / "valid.acc.ave.pth")
    model = build(host, gmot_conf={"teacher_width": 12})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_pretrained_model(str(tmp_path / "valid.acc.ave.pth"), model, ignore_init_mismatch=False)
    state, trained = model.state_dict(), stock.state_dict()
    assert {name for name in state if name not in trained} == {name for name in state if name.startswith("gmot.")}
    assert trained.keys() <= state.keys() and all(torch.equal(state[name], value) for name, value in trained.items())
    assert all(torch.equal(state[name], before[name]) for name in state if name.startswith("gmot."))
    loss, stats, _ = model(**batch)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and float(stats["loss_gmot"]) > 0
    assert model.gmot.adapter.map.weight.grad.abs().sum() > 0
