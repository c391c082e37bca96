"""Where the acoustic graph comes from: blocks of every encoder, frontends, several places, and their lengths."""

import operator
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.hosts.taps import Tap
from tests.hosts.conftest import ENCODERS, batch_of
from tests.hosts.test_frontend import tiny

pytestmark = pytest.mark.espnet
GMOT = {"teacher_width": 12, "backend": "torch"}
TIED = {"preset": "hcsa", **GMOT}
HUBERT = {
    "extractor_conv_layer_config": [[8, 10, 8], [8, 8, 8]],
    "encoder_embed_dim": 16,
    "encoder_pos_conv_kernel": 4,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_ff_interm_features": 16,
    "encoder_layer_drop": 0.0,
    "finetuning": True,
}
#: What an encoder does to its last block's output.
LAST_NORM = {
    "whisper": "encoders.ln_post",
    "torchaudiohubert": "hubert_pretrain_model.wav2vec2.encoder.transformer.layer_norm",
}
LENGTHENED = {"postencoder": "length_adaptor", "postencoder_conf": {"length_adaptor_n_layers": 1}}


@pytest.mark.parametrize("encoder", [*(name for name in ENCODERS if name != "rnn"), "torchaudiohubert"])
def test_the_last_block_is_the_encoders_output_before_its_norm(build: Callable, encoder: str) -> None:
    more = {"encoder_conf": HUBERT} if encoder == "torchaudiohubert" else {}
    model = build(
        "ctc", encoder, gmot_conf={**TIED, "tap": ["encoder.0", "encoder.1"], "teacher_layer": [1, 2]}, **more
    )
    assert [loss.adapter.map.in_features for loss in model.gmot.losses] == [16, 16]
    batch = batch_of(encoder)
    with torch.no_grad(), Tap(model.eval(), "encoder.0") as first, Tap(model, "encoder.1") as last:
        encoded, lengths = model.encode(batch["speech"], batch["speech_lengths"])
    nodes, found = last.features()
    norm = operator.attrgetter(LAST_NORM.get(encoder, "after_norm"))(model.encoder)
    torch.testing.assert_close(norm(nodes), encoded)
    assert found.tolist() == lengths.tolist() == first.features()[1].tolist()
    assert (first.features()[0] - nodes).abs().max() > 1e-3


@pytest.mark.parametrize("encoder", ["transformer", "whisper"])
def test_a_postencoder_changes_the_rate_of_the_output_alone(build: Callable, encoder: str) -> None:
    batch = batch_of(encoder)
    taps = {"tap": ["encoder.0", "encoder"], "teacher_layer": [1, 2]}
    model = build("ctc", encoder, gmot_conf={**TIED, **taps}, **LENGTHENED)
    with Tap(model, "encoder.1") as tap:
        encoded, lengths = model.encode(batch["speech"], batch["speech_lengths"])
    nodes, found = tap.features()
    assert (encoded.shape[1], lengths.tolist()) == (10, [10, 7])
    assert (nodes.shape[1], found.tolist()) == (20, [20, 15])
    model(**batch)[0].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(UserError, match=r"blank weighs what the encoder gives, but tap: encoder.1 has another number"):
        build("ctc", encoder, gmot_conf={**GMOT, "tap": "encoder.1", "frame_weights": "blank"}, **LENGTHENED)(**batch)


def test_frames_that_are_dropped_between_the_blocks(build: Callable, batch: dict) -> None:
    trimmed = {"interctc_layer_idx": [1], "interctc_use_conditioning": True, "ctc_trim": True}
    model = build("ctc", encoder_conf={**ENCODERS["conformer"], **trimmed}, gmot_conf={**GMOT, "tap": "encoder.0"})
    with torch.no_grad():
        model.ctc.ctc_lo.bias[0] = 30.0  # blank all along: all but a few frames go
    with Tap(model, "encoder.0") as before, Tap(model, "encoder.1") as after:
        _, lengths = model.encode(batch["speech"], batch["speech_lengths"])
    assert lengths.tolist() == after.features()[1].tolist() != [20, 15]
    assert before.features()[1].tolist() == [20, 15]


def test_a_checkpointed_block_gives_the_same_gradient(build: Callable, batch: dict) -> None:
    gradients = []
    for layers in ([], [0, 1, 2]):
        conf = {**ENCODERS["e_branchformer"], "gradient_checkpoint_layers": layers}
        model = build("ctc", "e_branchformer", encoder_conf=conf, gmot_conf={**GMOT, "tap": "encoder.0"})
        model(**batch)[0].backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["default", "hf_speech"])
def test_frontend_blocks_and_output_at_once(build: Callable, tmp_path: Path, name: str) -> None:
    """The graph of a speech model's features, ESPnet's or a frozen one of Hugging Face's."""
    options = {"model": tiny("whisper", tmp_path / "speech")}
    if name == "default":
        options = {"n_fft": 256, "hop_length": 128, "n_mels": 8}
    frontend = {"input_size": None, "frontend": name, "frontend_conf": options}
    taps = {"tap": ["frontend", "encoder.0", "encoder"], "teacher_layer": [1, 2, 3], "pool": 2}
    model = build("hybrid", "transformer", gmot_conf={**TIED, **taps}, **frontend)
    widths = [loss.adapter.map.in_features for loss in model.gmot.losses]
    assert widths == [model.frontend.output_size(), 16, 16]
    batch = batch_of("whisper")
    with torch.no_grad(), Tap(model.eval(), "frontend") as tap:
        model.encode(batch["speech"], batch["speech_lengths"])
        expected, lengths = model.frontend(batch["speech"], batch["speech_lengths"])
    nodes, found = tap.features()
    torch.testing.assert_close(nodes, expected)
    assert found.tolist() == lengths.tolist() and lengths[0] > lengths[1]
    model.train()(**batch)[0].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_places_that_a_model_lacks_are_refused(build: Callable) -> None:
    for tap, message in (
        ("encoder.9", "the encoder's blocks are 0 to 1"),
        ("encoder.x", "unknown place 'encoder.x'"),
        ("decoder", "unknown place 'decoder'"),
        ("frontend", "this model reads extracted features"),
    ):
        with pytest.raises(UserError, match=message):
            build(gmot_conf={**GMOT, "tap": tap})
    with pytest.raises(UserError, match="the blocks of RNNEncoder are unknown: use tap: encoder"):
        build("ctc", "rnn", gmot_conf={**GMOT, "tap": "encoder.0"})
    conf = {**ENCODERS["contextual_block_conformer"], "block_size": 40}
    with pytest.raises(UserError, match="cuts its input: block_size: 0"):
        build("ctc", "contextual_block_conformer", encoder_conf=conf, gmot_conf={**GMOT, "tap": "encoder.0"})


def test_a_skipped_block_is_reported(build: Callable, batch: dict) -> None:
    conf = {**ENCODERS["e_branchformer"], "layer_drop_rate": 1.0}
    model = build("ctc", "e_branchformer", encoder_conf=conf, gmot_conf={**GMOT, "tap": "encoder.0"})
    with pytest.raises(UserError, match=r"'encoder.0' was skipped in this step: set layer_drop_rate: 0\.0"):
        model(**batch)
