"""``model: gmot`` on every host: the stock loss plus the transfer, and a teacher that leaves no trace."""

import copy
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from espnet_gmot.config import PRESETS
from espnet_gmot.errors import UserError
from espnet_gmot.hosts.export import strip
from espnet_gmot.teacher import PLMTeacher
from tests.hosts.conftest import ENCODERS, HOSTS, TOKENS, batch_of

pytestmark = pytest.mark.espnet
TRANSPORT = {"loss_gmot", "loss_wd", "loss_gwd", "loss_align", "marginal_error", "iterations"}
POOLING = {"loss_gmot", "loss_align", "loss_quantity"}
STATISTICS = {"ctc": {"loss"}, "kd-att": POOLING, "kd-cif": POOLING}
GMOT = {"teacher_width": 12, "backend": "torch"}


def stock_batch(batch: dict) -> dict:
    return {name: value.clone() for name, value in batch.items() if not name.startswith("teacher")}


def options_of(preset: str, encoder: str) -> dict:
    """A preset on the tiny models: two tied layers instead of three."""
    if preset == "ctc":
        return {"preset": preset}
    first = "encoder" if encoder == "rnn" else "encoder.0"  # the one encoder here that has no blocks
    tied = {"tap": [first, "encoder"], "teacher_layer": [1, 2]} if preset == "hcsa" else {}
    return {**GMOT, "preset": preset, **tied}


@pytest.fixture(scope="module")
def plain() -> dict:
    """Parameters and loss of each stock model that has been built, and which parameters get no gradient."""
    return {}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_preset_on_every_encoder_and_host(
    build: Callable, plain: dict, encoder: str, host: str, preset: str
) -> None:
    """The loss is the stock loss plus the transfer, and every parameter learns from it."""
    batch = batch_of(encoder)
    if (encoder, host) not in plain:
        stock = build(host, encoder, model="espnet")
        loss = stock(**stock_batch(batch))[0]
        loss.backward()
        plain[encoder, host] = stock.state_dict(), loss.detach(), unlearned(stock)
    state, stock_loss, stock_unlearned = plain[encoder, host]
    model = build(host, encoder, gmot_conf=options_of(preset, encoder))
    model.load_state_dict(state, strict=False)
    loss, stats, weight = model(**batch)
    assert loss.shape == (1,) and weight.item() == 2
    transfer = stats.get("loss_gmot", torch.zeros(()))
    torch.testing.assert_close(loss.detach(), stock_loss + transfer)
    torch.testing.assert_close(stats["loss"], loss.detach())
    assert (transfer > 0) == (preset != "ctc") and stats.keys() >= STATISTICS.get(preset, TRANSPORT)
    loss.backward()
    # ESPnet's AISHELL configurations say unused_parameters: false; ESPnet 202301 builds a decoder beside CTC alone
    assert unlearned(model) == stock_unlearned and all(name.startswith("decoder.") for name in stock_unlearned)


def unlearned(model: torch.nn.Module) -> list[str]:
    """The parameters that a backward pass has not reached."""
    return [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "ctc"])
def test_the_mlp_adapter_learns_with_every_preset(build: Callable, batch: dict, preset: str) -> None:
    model = build(gmot_conf={**options_of(preset, "conformer"), "adapter": "mlp", "adapter_hidden": 5})
    linear = build(gmot_conf=options_of(preset, "conformer"))
    loss, stats, _ = model(**batch)
    assert stats["loss_gmot"].item() != linear(**batch)[1]["loss_gmot"].item()
    loss.backward()
    layers = [part for name, part in model.gmot.named_modules() if name.endswith("adapter.map")]
    assert len(layers) == (2 if preset == "hcsa" else 1)
    for first, _, last in layers:
        assert first.out_features == 5 and first.weight.grad.abs().max() > 0 and last.weight.grad.abs().max() > 0


@pytest.mark.parametrize("options", [{"preset": "ctc"}, {"preset": "ctc", "adapter": "mlp", "adapter_hidden": 5}])
def test_without_weights_it_is_the_stock_model_bit_for_bit(build: Callable, batch: dict, options: dict) -> None:
    stock, model = build("hybrid", model="espnet"), build("hybrid", gmot_conf=dict(options))
    assert model.state_dict().keys() == stock.state_dict().keys()
    losses = []
    for each in (stock, model):
        loss, _, _ = each(**stock_batch(batch))
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    for ours, theirs in zip(model.parameters(), stock.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("tap", ["encoder.0", "encoder.1"])
def test_an_inner_tap_sees_another_place(build: Callable, batch: dict, tap: str) -> None:
    model = build("ctc", "transformer", gmot_conf={**GMOT, "tap": tap})
    speech = stock_batch(batch)
    features, lengths = model.encode(speech["speech"], speech["speech_lengths"])
    assert model._encoded is None and features.shape[:2] == (2, 20) and lengths.tolist() == [20, 15]
    block, given = {}, {}
    model.encoder.encoders[int(tap[-1])].register_forward_hook(lambda _, __, out: block.update(features=out[0]))
    model.gmot.register_forward_hook(lambda _, inputs, __: given.update(features=inputs[0], lengths=inputs[1]))
    model(**batch)
    assert torch.equal(given["features"], block["features"]) and torch.equal(given["lengths"], lengths)
    assert not torch.equal(given["features"], features)


def test_several_taps_tie_layers_of_encoder_and_teacher(build: Callable, batch: dict) -> None:
    pairs = {"preset": "hcsa", "tap": ["encoder.0", "encoder"], "teacher_layer": [1, 2]}
    model = build("hybrid", gmot_conf={**GMOT, **pairs})  # the stream's 12 columns are two layers of 6
    model(**batch)[0].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    singles = []
    for index, (tap, part) in enumerate(zip(pairs["tap"], batch["teacher"].chunk(2, -1), strict=True)):
        single = build("hybrid", gmot_conf={**GMOT, "preset": "ot", "tap": tap, "teacher_width": 6})
        single.load_state_dict(model.state_dict(), strict=False)
        single.gmot.load_state_dict(model.gmot.losses[index].state_dict())
        singles.append(single.eval()(**{**batch, "teacher": part})[1]["loss_gmot"])
    torch.testing.assert_close(model.eval()(**batch)[1]["loss_gmot"], torch.stack(singles).mean(0))
    with pytest.raises(UserError, match="12 is not that of 5 layers side by side"):
        build("hybrid", gmot_conf={**GMOT, "tap": ["encoder"] * 5, "teacher_layer": [1] * 5})


def test_blank_weights_are_those_of_the_ctc_head(build: Callable, batch: dict) -> None:
    model = build(gmot_conf={**GMOT, "frame_weights": "blank"}).eval()
    given = {}
    model.gmot.register_forward_hook(lambda _, inputs, __: given.update(weights=inputs[4]))
    model(**batch)
    encoded, _ = model.encode(batch["speech"], batch["speech_lengths"])
    torch.testing.assert_close(given["weights"], 1 - model.ctc.ctc_lo(encoded).softmax(-1)[..., 0])
    assert not given["weights"].requires_grad and 0 <= given["weights"].min() < given["weights"].max() <= 1
    with torch.no_grad():
        model.ctc.ctc_lo.bias[0] += 12.0  # hardly anything but blank: 1 - p would have lost most of its digits
    model(**batch)
    logits = model.ctc.ctc_lo(encoded).double()
    exact = (logits[..., 1:].logsumexp(-1) - logits.logsumexp(-1)).exp()
    torch.testing.assert_close(given["weights"].double(), exact, rtol=1e-3, atol=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch)
    assert given["weights"].dtype == torch.float32
    torch.testing.assert_close(given["weights"].double(), exact, rtol=0.2, atol=0.0)  # as the encoder was rounded
    with torch.no_grad():
        model.ctc.ctc_lo.bias[0] += 100.0  # nothing but blank
    assert model(**batch)[0].isfinite() and given["weights"].min() >= 0


def test_the_residual_path_starts_as_the_stock_model_and_feeds_the_ctc_head_only(build: Callable, batch: dict) -> None:
    stock, model = build("hybrid", model="espnet"), build("hybrid", gmot_conf={**GMOT, "residual": True})
    model.load_state_dict(stock.state_dict(), strict=False)
    loss, stats, _ = model(**batch)
    torch.testing.assert_close(loss - stats["loss_gmot"], stock(**stock_batch(batch))[0])
    loss.backward()
    assert model.gmot.back.weight.grad.abs().max() > 0
    with torch.no_grad():
        model.gmot.back.weight.normal_()
    encoded, _ = model.encode(batch["speech"], batch["speech_lengths"])
    merged = encoded + model.gmot.back(model.gmot.adapter.map(encoded))
    torch.testing.assert_close(model.ctc.log_softmax(encoded), stock.ctc.log_softmax(merged))
    torch.testing.assert_close(model(**batch)[1]["loss_att"], stats["loss_att"])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copys_residual_path_is_its_own(build: Callable, batch: dict, duplicate: Callable) -> None:
    """Moving averages of the weights keep a copy of the model."""
    model = build("ctc", gmot_conf={**GMOT, "residual": True})
    with torch.no_grad():
        model.gmot.back.weight.normal_()
    twin = duplicate(model)
    expected = model(**batch)[0].detach()
    with torch.no_grad():
        model.gmot.back.weight.zero_()
    loss = twin(**batch)[0]
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert twin.gmot.back.weight.grad.abs().max() > 0 and twin.gmot.adapter.map.weight.grad.abs().max() > 0


def test_the_resolved_options_are_logged_and_saved(build: Callable, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.warns(FutureWarning, match="'stack' is now called 'pool'"):
        model = build(gmot_conf={"teacher_width": 12, "preset": "ot", "stack": 2})
    saved = model.args.model_conf["gmot_conf"]
    assert saved == model.gmot_config.to_dict() and saved["pool"] == 2  # under the new name alone
    assert saved["alpha"] == 0.0 and saved["epsilon"] == model.gmot_config.epsilon and saved["teacher_width"] == 12
    assert all(f"{name}={value!r}" in caplog.text for name, value in saved.items())


def test_without_a_teacher_the_error_says_how_to_get_one(build: Callable, batch: dict) -> None:
    with pytest.raises(UserError, match=r"dump-teacher .* or set gmot_conf.teacher"):
        build(gmot_conf=dict(GMOT))(**stock_batch(batch))
    with pytest.raises(UserError, match="teacher_width is missing"):
        build(gmot_conf={})


def test_an_online_teacher_stays_outside_the_model(build: Callable, batch: dict, tiny_plm: Path) -> None:
    model = build("hybrid", gmot_conf={"teacher": str(tiny_plm), "backend": "torch"}, init="xavier_uniform")
    assert model.gmot_config.teacher_width == 12 and model.teacher is None
    keys = model.state_dict().keys()
    loss, stats, _ = model(**stock_batch(batch))
    loss.backward()
    assert stats["loss_gmot"].item() > 0 and model.teacher is not None
    assert model.state_dict().keys() == keys and not any("teacher." in key for key in keys)
    transcripts = model.transcripts(batch["text"], batch["text_lengths"])
    assert transcripts == ["今天气很", "们去好"]
    features, lengths = model.teacher(transcripts)
    again = build("hybrid", gmot_conf={"teacher": str(tiny_plm), "backend": "torch"}, init="xavier_uniform")
    streamed, _, _ = again(**stock_batch(batch), teacher=features, teacher_lengths=lengths)
    torch.testing.assert_close(streamed, loss)


def test_an_utterance_of_noise_alone_is_named_and_takes_no_part(
    build: Callable, batch: dict, tiny_plm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Online as from an archive, where a row of zeros stands for it."""
    (tmp_path / "nlsyms").write_text("NOISE\n")
    tokens = [*TOKENS[:-1], "NOISE", TOKENS[-1]]
    noise = tokens.index("NOISE")
    batch = {**stock_batch(batch), "utt_id": ["spoken", "noisy"]}
    batch["text"][1] = torch.tensor([noise, noise, noise, -1])
    features, _ = PLMTeacher(str(tiny_plm))(["今天气很"])
    stream = {"teacher": torch.cat([features, torch.zeros_like(features)]), "teacher_lengths": torch.tensor([4, 1])}
    conf = {"teacher": str(tiny_plm), "backend": "torch", "centre": True}
    losses = []
    for more in ({}, stream):
        caplog.clear()
        model = build("ctc", gmot_conf=dict(conf), token_list=tokens, non_linguistic_symbols=f"{tmp_path}/nlsyms")
        for _ in range(2):
            loss, stats, _ = model(**batch, **more)
        loss.backward()
        assert all(grad.isfinite().all() for grad in (each.grad for each in model.parameters()) if grad is not None)
        losses.append(stats["loss_gmot"])
        told = "utterance noisy: the teacher finds nothing to read"
        assert stats["loss_wd"] > 0 and caplog.text.count(told) == 1 and "utterance spoken" not in caplog.text
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("where", ["speech", "teacher"])
def test_what_is_not_finite_is_named_once_and_neither_hidden_nor_kept(
    build: Callable, batch: dict, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    model = build(gmot_conf={**GMOT, "centre": True})
    odd = {name: each.clone() for name, each in batch.items()}
    odd[where][1, 2, 3] = torch.nan
    for _ in range(2):
        loss, _, _ = model(**{**odd, "utt_id": ["fine", "odd"]})
        assert not torch.isfinite(loss).all()  # ESPnet's trainer sees it, and skips the step
    assert caplog.text.count("utterance odd: its") == 1 and f"its {where}" in caplog.text
    assert "utterance fine" not in caplog.text
    assert torch.isfinite(model.gmot.teacher_mean).all()


def test_processes_beside_the_first_name_utterances_too(
    build: Callable, batch: dict, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ESPnet shows only errors of these."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    batch["speech"][1, 2, 3] = torch.nan
    for rank, level in ((0, "WARNING"), (1, "ERROR")):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        caplog.clear()
        build(gmot_conf=dict(GMOT)).eval()(**{**batch, "utt_id": ["fine", "odd"]})
        assert [record.levelname for record in caplog.records if "utterance odd" in record.message] == [level]


def test_a_mix_of_the_online_teachers_layers_stays_behind_at_export(
    build: Callable, batch: dict, tiny_plm: Path
) -> None:
    layers = {"teacher": str(tiny_plm), "teacher_layer": [0, 1], "teacher_mix": True, "backend": "torch"}
    model = build("hybrid", gmot_conf={**layers, "residual": True}, init="xavier_uniform")
    assert model.gmot_config.teacher_width == 24 and model.gmot.adapter.map.out_features == 12
    assert model.gmot.mix.weights.tolist() == [0.5, 0.5]
    loss, stats, _ = model(**stock_batch(batch))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.gmot.mix.logits.grad.abs().max() > 0 and stats["mix_0"] == stats["mix_1"] == 0.5
    state = model.state_dict()
    assert strip(state, True, Path("x.pth"))[1] and state.keys() == build("hybrid", model="espnet").state_dict().keys()


def test_decoding_never_loads_the_teacher(build: Callable, batch: dict, tmp_path: Path) -> None:
    conf = {"teacher": str(tmp_path / "gone"), "teacher_width": 12}
    model = build(gmot_conf=conf).eval()
    encoded, _ = model.encode(batch["speech"], batch["speech_lengths"])
    assert encoded.shape == (2, 20, 16) and model.teacher is None
