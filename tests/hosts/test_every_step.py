"""Every parameter gets a finite gradient in every step, whatever the options, the batch and the precision."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.hosts import precision as precision_module
from espnet_gmot.hosts.precision import lstm_trains
from tests.hosts.conftest import HOSTS

pytestmark = pytest.mark.espnet

OPTIONS: dict[str, dict[str, Any]] = {
    "gmot": {},
    "nodes alone": {"alpha": 0.0},
    "edges alone": {"alpha": 1.0, "w_align": 0.0},
    "temporal edges alone": {"alpha": 1.0, "feature_edges": 0.0, "temporal_edges": 1.0},
    "distance alone": {"w_align": 0.0},
    "alignment alone": {"w_ot": 0.0},
    "warm-up": {"warmup": 9, "alpha_warmup": 9},
    "schedule over": {"warmup": 1, "hold": 1, "decay": 1},
    "uot": {"preset": "uot"},
    "tot": {"preset": "tot"},
    "gmot-u": {"preset": "gmot-u", "temporal_edges": 0.5},
    "kd-att": {"preset": "kd-att"},
    "kd-cif": {"preset": "kd-cif"},
    "quantity alone": {"preset": "kd-cif", "w_align": 0.0},
    "inner tap": {"tap": "encoder.0"},
    "layers": {"tap": ["encoder.0", "encoder"], "teacher_layer": [1, 2]},
    "blank weights": {"frame_weights": "blank"},
    "residual": {"residual": True},
    "pooled": {"pool": 3, "frame_weights": "blank", "adapter": "mlp"},
    "not centred": {"centre": False},
    "mixed": {"teacher_mix": True, "teacher_layer": [1, 2]},
    "implicit": {"method": "mirror", "plan_gradient": "implicit", "frame_weights": "blank"},
}


def odd_batches(batch: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The batch, and others that corpora have too."""
    single = {name: tensor[:1] for name, tensor in batch.items()}
    one_token = {"text": torch.tensor([[3]]), "text_lengths": torch.ones(1, dtype=torch.long)}
    one_token |= {"teacher": single["teacher"][:, :1], "teacher_lengths": one_token["text_lengths"]}
    one_frame = {"speech": single["speech"][:, :1], "speech_lengths": torch.ones(1, dtype=torch.long)}
    silent = {name: torch.zeros_like(batch[name]) for name in ("speech", "teacher")}
    return {
        "usual": batch,
        "one token": {**single, **one_token},
        "one frame, one token": {**one_frame, **one_token},
        "fewer frames than tokens": {**single, **one_frame},
        "all zero": {**batch, **silent},
        "usual again": batch,
    }


def assert_all_learn(model: torch.nn.Module, batches: dict[str, dict[str, torch.Tensor]]) -> None:
    for name, batch in batches.items():
        model.zero_grad(set_to_none=True)
        loss, _, _ = model(**{key: tensor.clone() for key, tensor in batch.items()})
        loss.backward()
        gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
        unused = [key for key, gradient in gradients.items() if gradient is None]
        assert not unused, f"{name}: no gradient for {unused}"
        bad = [key for key, gradient in gradients.items() if not gradient.isfinite().all()]
        assert loss.isfinite() and not bad, f"{name}: loss {loss.item()}, not finite: {bad}"


@pytest.mark.parametrize("options", OPTIONS)
def test_no_option_leaves_a_parameter_unused(build: Callable, batch: dict, options: str) -> None:
    model = build("ctc", "e_branchformer", gmot_conf={"teacher_width": 12, "backend": "torch", **OPTIONS[options]})
    assert_all_learn(model, odd_batches(batch))


@pytest.mark.parametrize("options", ["gmot", "blank weights", "layers"])
@pytest.mark.parametrize("host", [host for host in HOSTS if host != "ctc"])
def test_no_host_leaves_a_parameter_unused(build: Callable, batch: dict, host: str, options: str) -> None:
    model = build(host, "transformer", gmot_conf={"teacher_width": 12, "backend": "torch", **OPTIONS[options]})
    assert_all_learn(model, odd_batches(batch))


def test_frames_that_are_all_surely_blank_do_no_harm(build: Callable, batch: dict) -> None:
    model = build("ctc", "transformer", gmot_conf={"teacher_width": 12, "backend": "torch", "frame_weights": "blank"})
    with torch.no_grad():
        model.ctc.ctc_lo.bias[0] = 1e3  # 1 - p(blank) is 0 in every frame
    assert_all_learn(model, odd_batches(batch))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("host", "options"),
    [("ctc", name) for name in ("gmot", "blank weights", "residual", "layers", "kd-att", "kd-cif")]
    + [("hybrid", "gmot"), ("transducer", "gmot")],
)
def test_autocast_changes_little(build: Callable, batch: dict, host: str, options: str, precision: torch.dtype) -> None:
    model = build(host, "transformer", gmot_conf={"teacher_width": 12, "backend": "torch", **OPTIONS[options]})
    if host == "transducer" and not lstm_trains(precision):
        pytest.skip(f"torch has no {precision} LSTM on this CPU")
    full = model(**batch)[1]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with torch.autocast("cpu", precision):
        loss, stats, _ = model(**batch)
    scaler.scale(loss).backward()
    scaler.unscale_(torch.optim.SGD(model.parameters()))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert loss.dtype == stats["loss_gmot"].dtype == torch.float32
    torch.testing.assert_close(loss.detach(), full["loss"], rtol=0.01, atol=0)
    torch.testing.assert_close(stats["loss_gmot"], full["loss_gmot"], rtol=0.01, atol=0)


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("could not create a primitive descriptor")


@pytest.mark.parametrize("preset", ["gmot", "ctc"])
def test_an_lstm_that_the_cpu_cannot_train_is_named(
    build: Callable, batch: dict, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("transducer", "transformer", gmot_conf={"teacher_width": 12, "backend": "torch", "preset": preset})
    if preset == "ctc":
        batch = {name: tensor for name, tensor in batch.items() if not name.startswith("teacher")}
    monkeypatch.setattr(torch.nn.LSTM, "forward", fail)
    monkeypatch.setattr(precision_module, "lstm_trains", lstm_trains.__wrapped__)  # what it knew before isn't true here
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(UserError, match="no LSTM in bfloat16 on this CPU") as error,
    ):
        model(**batch)
    assert "\n" not in str(error.value)
    with pytest.raises(RuntimeError, match="primitive"):  # without autocast it is another fault
        model(**batch)


def test_an_error_that_is_not_the_lstms_stays_itself(
    build: Callable, batch: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("ctc", "transformer", gmot_conf={"teacher_width": 12, "backend": "torch"})
    monkeypatch.setattr(precision_module, "lstm_trains", lambda *_: True)
    monkeypatch.setattr(model.encoder, "forward", fail)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="primitive"):
        model(**batch)
