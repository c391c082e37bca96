"""The Hugging Face speech frontend on tiny random models of every family, and on the real Whisper encoder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from espnet_gmot.errors import UserError

pytest.importorskip("espnet2")
from espnet_gmot.hosts.frontend import HFSpeechFrontend

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
CONVOLUTIONS = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (5, 4), "num_feat_extract_layers": 2}
POSITIONS = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
WAVE = {**SIZES, **CONVOLUTIONS, **POSITIONS}

# family: model class, config class, config, do_normalize
FAMILIES = {
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config", WAVE, True),
    "wav2vec2-large": ("Wav2Vec2Model", "Wav2Vec2Config", {**WAVE, **LAYER_NORM}, True),
    "wav2vec2-adapter": ("Wav2Vec2Model", "Wav2Vec2Config", {**WAVE, "add_adapter": True}, True),
    "hubert": ("HubertModel", "HubertConfig", WAVE, False),
    "hubert-large": ("HubertModel", "HubertConfig", {**WAVE, **LAYER_NORM}, True),
    "wavlm": ("WavLMModel", "WavLMConfig", {**WAVE, "num_buckets": 8}, False),
    "wavlm-large": ("WavLMModel", "WavLMConfig", {**WAVE, **LAYER_NORM, "num_buckets": 8}, True),
    "unispeech-sat": ("UniSpeechSatModel", "UniSpeechSatConfig", WAVE, False),
}


def whisper_config() -> transformers.WhisperConfig:
    """A Whisper that takes 0.4 s at a time."""
    return transformers.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=24,
        max_source_positions=20,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def tiny(family: str, folder: Path) -> str:
    """Write a random model of `family` and its preprocessing settings to `folder`."""
    torch.manual_seed(1)
    if family == "whisper":
        transformers.WhisperModel(whisper_config()).save_pretrained(folder, safe_serialization=True)
        transformers.WhisperFeatureExtractor().save_pretrained(folder)
        return str(folder)
    model, config, options, normalise = FAMILIES[family]
    network = getattr(transformers, model)(getattr(transformers, config)(**options))
    for name, parameter in network.named_parameters():
        if "norm" in name:  # an untrained norm would hide a mistake in its scale or shift
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    network.save_pretrained(folder, safe_serialization=True)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(folder)
    return str(folder)


def speech(*lengths: int) -> tuple[Tensor, Tensor]:
    """Random waveforms in one batch whose padding is not silence."""
    return 0.1 * torch.randn(len(lengths), max(lengths)), torch.tensor(lengths)


@pytest.mark.parametrize("layer", [-1, 0, 1, "weighted_sum"])
@pytest.mark.parametrize("family", ["whisper", *FAMILIES])
def test_batch_equals_single_utterances(family: str, layer: int | str, tmp_path: Path) -> None:
    frontend = HFSpeechFrontend(tiny(family, tmp_path), layer=layer).eval()
    waves, lengths = speech(4000, 2571, 1333, 100, 6400)
    feats, frames = frontend(waves, lengths)
    assert feats.shape == (5, int(frames.max()), 16)
    for row, size in enumerate(lengths.tolist()):
        alone, count = frontend(waves[row : row + 1, :size], lengths[row : row + 1])
        assert count.item() == frames[row] == alone.size(1)
        torch.testing.assert_close(feats[row, :count], alone[0], atol=2e-5, rtol=1e-4)
        assert not feats[row, count:].any()
    assert feats[0, :10].std() > 1e-3, "constant features would pass every comparison"


@pytest.mark.parametrize("family", FAMILIES)
def test_matches_hugging_face(family: str, tmp_path: Path) -> None:
    """One utterance, through transformers' own feature extractor and model."""
    folder = tiny(family, tmp_path)
    waves, lengths = speech(4000)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(
        folder, **({"add_adapter": False} if family == "wav2vec2-adapter" else {})
    ).eval()
    values = extractor(waves[0].numpy(), sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        expected = model(values, output_hidden_states=True)
    for layer, state in [(-1, expected.last_hidden_state), (1, expected.hidden_states[1])]:
        feats, _ = HFSpeechFrontend(folder, layer=layer)(waves, lengths)
        torch.testing.assert_close(feats, state, atol=2e-5, rtol=1e-4)


def test_whisper_matches_hugging_face_on_a_full_window(tmp_path: Path) -> None:
    folder = tiny("whisper", tmp_path)
    extractor = transformers.WhisperFeatureExtractor(chunk_length=0.4)
    waves, lengths = speech(6400)
    padded = np.pad(waves.numpy(), ((0, 0), (0, 400)))
    if hasattr(extractor, "_torch_extract_fbank_features"):
        mel = torch.from_numpy(np.stack(extractor._torch_extract_fbank_features(padded)))
    else:  # transformers before 4.39
        mel = torch.from_numpy(np.stack([extractor._np_extract_fbank_features(row) for row in padded])).float()
    encoder = transformers.WhisperModel.from_pretrained(folder).encoder.eval()
    with torch.no_grad():
        expected = encoder(mel[:, :, :40], output_hidden_states=True)
    feats, frames = HFSpeechFrontend(folder)(waves, lengths)
    assert frames.tolist() == [20]
    torch.testing.assert_close(feats, expected.last_hidden_state, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(HFSpeechFrontend(folder, layer=1)(waves, lengths)[0], expected.hidden_states[1])


@pytest.mark.parametrize("family", ["whisper", "wav2vec2"])
@pytest.mark.parametrize("samples", [1, 399, 400, 401, 480, 481, 3999, 4000])
def test_lengths_are_exact(family: str, samples: int, tmp_path: Path) -> None:
    frontend = HFSpeechFrontend(tiny(family, tmp_path))
    _, frames = frontend(*speech(samples, 4100))
    if family == "whisper":
        assert frames[0] == (max(1, samples // 160) + 1) // 2
    else:  # kernels 10 and 8, strides 5 and 4
        assert frames[0] == ((max(samples, 45) - 10) // 5 + 1 - 8) // 4 + 1


def test_long_audio_is_encoded_in_pieces(tmp_path: Path) -> None:
    frontend = HFSpeechFrontend(tiny("whisper", tmp_path))
    waves, lengths = speech(16000, 3200)  # one second: windows of 0.4 s
    feats, frames = frontend(waves, lengths)
    assert frames.tolist() == [50, 10]
    torch.testing.assert_close(feats[1, :10], frontend(waves[1:, :3200], lengths[1:])[0][0], atol=1e-5, rtol=1e-4)
    # one second makes three pieces of 34, 34 and 32 log-mel frames; what is said in the third stays out of the others
    changed = waves.clone()
    changed[0, 12000:] *= torch.linspace(-0.5, 0.5, 4000)
    again, _ = frontend(changed, lengths)
    torch.testing.assert_close(again[0, :34], feats[0, :34], atol=1e-5, rtol=1e-4)
    assert (again[0, 35:50] - feats[0, 35:50]).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["whisper", "wavlm", "wav2vec2-large"])
def test_frozen_encoder_stays_out_of_everything(family: str, tmp_path: Path) -> None:
    frontend = HFSpeechFrontend(tiny(family, tmp_path), layer="weighted_sum")
    frontend.train()
    assert not frontend.encoder.training
    assert {name for name, _ in frontend.named_parameters()} == {"layer_logits"}
    assert set(frontend.state_dict()) == {"layer_logits", "frozen_checksum"}
    waves, lengths = speech(2000, 1500)
    first, second = frontend(waves, lengths)[0], frontend(waves, lengths)[0]
    assert torch.equal(first, second), "no dropout"
    first.square().sum().backward()
    assert frontend.layer_logits.grad.abs().min() > 0
    assert all(weight.grad is None for weight in frontend.encoder.parameters())
    assert next(frontend.double().encoder.parameters()).dtype == torch.float64, ".to() reaches the frozen encoder"


@pytest.mark.parametrize("layer", [-1, 0, 1, "weighted_sum"])
@pytest.mark.parametrize("family", ["whisper", "hubert", "wav2vec2-large"])
def test_trained_encoder_gets_every_gradient(family: str, layer: int | str, tmp_path: Path) -> None:
    """DDP without `unused_parameters` needs one for each trainable parameter."""
    frontend = HFSpeechFrontend(tiny(family, tmp_path), freeze=False, layer=layer).train()
    frontend(*speech(2000, 1500))[0].square().sum().backward()
    bare = [name for name, weight in frontend.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not bare
    assert any(weight.grad is not None for weight in frontend.encoder.parameters())
    assert any(name.startswith("trained_encoder.") for name in frontend.state_dict())


@pytest.mark.parametrize("init", ["xavier_uniform", "chainer"])
@pytest.mark.parametrize("freeze", [True, False])
def test_espnet_init_leaves_pretrained_weights(init: str, freeze: bool, tmp_path: Path) -> None:
    from espnet2.torch_utils.initialize import initialize

    if init == "chainer":
        try:
            initialize(torch.nn.Linear(2, 2), init)
        except ValueError as error:  # ESPnet 202611 dropped it
            pytest.skip(str(error))
    frontend = HFSpeechFrontend(tiny("whisper", tmp_path), freeze=freeze, layer="weighted_sum").eval()
    waves, lengths = speech(2000)
    before = frontend(waves, lengths)[0].detach()
    initialize(torch.nn.ModuleDict({"frontend": frontend}), init)
    assert torch.equal(frontend(waves, lengths)[0], before)


def test_checkpoint_needs_the_same_frozen_weights(tmp_path: Path) -> None:
    folder = tiny("whisper", tmp_path / "a")
    state = HFSpeechFrontend(folder).state_dict()
    HFSpeechFrontend(folder).load_state_dict(state)
    other = transformers.WhisperModel(whisper_config())
    other.save_pretrained(tmp_path / "b")
    transformers.WhisperFeatureExtractor().save_pretrained(tmp_path / "b")
    with pytest.raises(UserError, match="does not hold the weights"):
        HFSpeechFrontend(str(tmp_path / "b")).load_state_dict(state)


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    folder = tiny("whisper", tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    HFSpeechFrontend(folder)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fs": "8k"}, "8000 Hz, but .* takes 16000 Hz"),
        ({"fs": "fast"}, "'fast' is no sampling rate"),
        ({"layer": 3}, "3 is no layer; take 0 to 2, -3 to -1 or weighted_sum"),
        ({"layer": "last"}, "'last' is no layer"),
        ({"layer": True}, "True is no layer"),
        ({"model": None}, "frontend_conf.model: nothing given"),
        (
            {"model": "/nowhere/whisper"},
            "speech model '/nowhere/whisper': there is no such folder",
        ),
    ],
)
def test_bad_options_are_named(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        HFSpeechFrontend(**{"model": tiny("whisper", tmp_path), **options})


def test_text_models_and_broken_folders_are_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    config.save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="family bert is not supported; take one of whisper, wav2vec2"):
        HFSpeechFrontend(str(tmp_path / "bert"))
    folder = Path(tiny("hubert", tmp_path / "hubert"))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:2000])
    with pytest.raises(UserError, match=r"speech model .*: model.safetensors is damaged or cut short \(2000 bytes\)"):
        HFSpeechFrontend(str(folder))
    weights.write_bytes(whole)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"speech model .*: the folder lacks preprocessor_config\.json"):
        HFSpeechFrontend(str(folder))


def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(tiny("whisper", tmp_path))
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layers.1.fc1.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 tensors are missing .*layers\.1\.fc1\.weight"):
        HFSpeechFrontend(str(folder))


def test_stereo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes one channel"):
        HFSpeechFrontend(tiny("whisper", tmp_path))(torch.zeros(1, 800, 2), torch.tensor([800]))


@pytest.mark.espnet
def test_espnet_model_keeps_its_frozen_frontend_out_of_checkpoints(build: Callable, tmp_path: Path) -> None:
    options = {"frontend": "hf_speech", "frontend_conf": {"model": tiny("whisper", tmp_path / "whisper"), "fs": "16k"}}
    model = build(model="espnet", input_size=None, init="xavier_uniform", **options)
    assert {name for name in model.state_dict() if name.startswith("frontend")} == {"frontend.frozen_checksum"}
    waves, lengths = speech(6400, 4000)
    loss, _, _ = model(waves, lengths, torch.tensor([[2, 3], [4, -1]]), torch.tensor([2, 1]))
    loss.backward()
    # ESPnet 202301 builds an attention decoder ("rnn" is its default) where CTC alone is trained and never uses it
    used = (weight for name, weight in model.named_parameters() if not name.startswith("decoder."))
    assert all(weight.grad is not None for weight in used if weight.requires_grad)
    decoder = build(model="espnet", input_size=None, **options)
    decoder.load_state_dict(model.state_dict())
    torch.testing.assert_close(decoder.eval().encode(waves, lengths)[0], model.eval().encode(waves, lengths)[0])


@pytest.mark.shared
def test_real_whisper_log_mel_is_exact_and_features_are_near_the_padded_ones(shared_whisper: Path) -> None:
    """Without 30 seconds of padding the features differ (measured: cosine 0.93 to 0.95), the log-mel frames do not."""
    frontend = HFSpeechFrontend(str(shared_whisper))
    time = torch.arange(48000) / 16000
    waves = (torch.sin(2 * torch.pi * (200 + 300 * time) * time) * torch.hann_window(48000))[None]
    waves = 0.3 * waves + 0.003 * torch.randn(1, 48000)
    lengths = torch.tensor([48000])
    extractor = transformers.AutoFeatureExtractor.from_pretrained(shared_whisper)
    expected = extractor(waves[0].numpy(), sampling_rate=16000, return_tensors="pt").input_features
    mel, frames = frontend.encoder.log_mel(waves, lengths)
    assert frames.item() == 300
    torch.testing.assert_close(
        mel[0], expected[0, :, :300].T, atol=5e-5, rtol=1e-5
    )  # transformers 4 computes in double
    with torch.no_grad():
        padded = frontend.encoder.hf(expected).last_hidden_state[0, :150]
    feats, count = frontend(waves, lengths)
    assert (count.item(), frontend.output_size()) == (150, 512)
    assert torch.cosine_similarity(padded, feats[0], dim=-1).mean() > 0.8
