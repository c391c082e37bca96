"""Hugging Face speech encoders behind one interface: padded waveforms in, the states of every layer out.

No ESPnet here. An utterance's states do not depend on its batch mates, and lengths are exact.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import math
from typing import Any

import torch
from torch import Tensor, nn

from espnet_gmot.errors import UserError
from espnet_gmot.graph import Graph
from espnet_gmot.hub import SPEECH, check_complete, from_pretrained
from espnet_gmot.transport.masks import valid

#: `model_type` of the waveform encoders that share wav2vec 2.0's layout (convolutions, projection, Transformer).
#: data2vec-audio is not among them: its stack of positional convolutions lets padding leak into the last frames.
WAVE_FAMILIES = ("wav2vec2", "hubert", "wavlm", "unispeech-sat")

#: Tensors of a pretrained model that are never used here, so that a folder may lack them.
_UNUSED = ("masked_spec_embed", "decoder.")
#: The settings of a feature extractor that change its features.
_PREPARATION = ("sampling_rate", "feature_size", "n_fft", "hop_length", "dither", "do_normalize")


class SpeechEncoder(nn.Module):
    """A Hugging Face encoder behind one interface: padded waveforms in, one (B, T, D) tensor per layer out.

    Attributes:
        width: D.
        sampling_rate: Hz.
        fingerprint: digest (hex) of the pretrained weights and of the settings of the waveform's preparation.
    """

    hf: Any  # transformers' modules have attributes that torch's types don't know

    def __init__(self, hf: Any, extractor: Any) -> None:
        super().__init__()
        self.hf = hf
        self.width: int = hf.config.hidden_size
        self.sampling_rate: int = extractor.sampling_rate
        # what the extractor does, not all that it stores: later versions of transformers add keys
        used = {key: value for key, value in extractor.to_dict().items() if key in _PREPARATION}
        digest = hashlib.sha256(json.dumps(used, sort_keys=True, default=str).encode())
        for name, weight in hf.state_dict().items():
            digest.update(name.encode())
            digest.update(weight.contiguous().numpy().tobytes())
        self.fingerprint: str = digest.hexdigest()

    @property
    def layers(self) -> nn.ModuleList:
        """The Transformer layers."""
        raise NotImplementedError

    def index(self, layer: int | str, also: str = "") -> int:
        """`layer` as an index from 0 on into the states.

        Args:
            layer: 0 for the input of the first layer, N for the output of layer N; negative ones count from the end.
            also: what else the caller would take, for the message.

        Raises:
            UserError: there is no such layer.
        """
        count = len(self.layers)
        if isinstance(layer, bool) or not isinstance(layer, int) or not -count - 1 <= layer <= count:
            known = f"0 to {count}, -{count + 1} to -1 {also}".rstrip()
            raise UserError(f"frontend layer: {layer!r} is no layer; take {known}")
        return layer % (count + 1)

    def cut(self, layer: int) -> None:
        """Drop the Transformer layers above `layer` (its index among the states), which nothing would use."""
        if layer < len(self.layers):
            del self.layers[max(layer, 1) :]  # one layer stays, so that the state before it can be seen
            self.freeze_unused(layer)

    def freeze_unused(self, layer: int) -> None:
        """Take gradients off what is left but not used, because DDP insists that each parameter gets one."""
        if layer == 0:
            self.layers.requires_grad_(False)


class WhisperStates(SpeechEncoder):
    """Whisper's encoder on the audio as it is, without padding it to 30 seconds.

    The first T of Whisper's position embeddings serve T frames. The Hugging Face encoder takes no mask and exactly
    30 seconds, so its layers are called from here, with padding masked in the convolutions and the attention. Longer
    audio is cut into equal pieces of at most 30 seconds that do not see each other.
    """

    mel_filters: Tensor
    window: Tensor

    def __init__(self, hf: Any, extractor: Any) -> None:
        super().__init__(hf, extractor)
        self.n_fft: int = extractor.n_fft
        self.hop: int = extractor.hop_length
        filters = torch.as_tensor(extractor.mel_filters, dtype=torch.float32)
        self.register_buffer("mel_filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        # transformers 4's layers insist on one
        heads = "layer_head_mask" in inspect.signature(hf.layers[0].forward).parameters
        self._extra: dict[str, None] = {"layer_head_mask": None} if heads else {}

    @property
    def layers(self) -> nn.ModuleList:
        """The Transformer layers."""
        return self.hf.layers

    def freeze_unused(self, layer: int) -> None:
        """See the base class: the final normalisation belongs to the last state only."""
        super().freeze_unused(layer)
        self.hf.layer_norm.requires_grad_(False)

    def log_mel(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Whisper's log-mel features, those of `WhisperFeatureExtractor` without its padding.

        Args:
            speech: (B, N) samples.
            lengths: (B,) valid samples.

        Returns:
            (B, M, mels), the first M frames of what the extractor gives, and (B,) frames: samples // hop, at least 1.
        """
        with torch.autocast(speech.device.type, enabled=False):
            speech = speech.float().masked_fill(~valid(lengths, speech.size(1)), 0.0)
            # silence after the end, as in the padded original, where a bare STFT would mirror the signal
            speech = nn.functional.pad(speech, (0, self.n_fft))
            window, filters = self.window.float(), self.mel_filters.float()
            power = torch.stft(speech, self.n_fft, self.hop, window=window, return_complex=True).abs().square()
            mel = (power.transpose(1, 2) @ filters).clamp(min=1e-10).log10()
        mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0)
        frames = (lengths // self.hop).clamp(min=1)
        mel = (mel[:, : int(frames.max())] + 4.0) / 4.0
        return mel.masked_fill(~valid(frames, mel.size(1))[:, :, None], 0.0), frames

    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the states, each (B, T, D), and (B,) lengths: half the log-mel frames, rounded up."""
        mel, frames = self.log_mel(speech, lengths)
        limit = 2 * self.hf.embed_positions.num_embeddings
        if mel.size(1) <= limit:
            return self._encode(mel, frames)
        pieces: list[Tensor] = []
        counts: list[int] = []
        for row, size in zip(mel, frames.tolist(), strict=True):
            counts.append(math.ceil(size / limit))
            step = 2 * math.ceil(size / counts[-1] / 2)  # even: no frame is lost or doubled at a cut
            pieces.extend(row[:size].split(step))
        sizes = torch.tensor([len(piece) for piece in pieces], device=mel.device)
        states, sizes = self._encode(nn.utils.rnn.pad_sequence(pieces, batch_first=True), sizes)
        return _rejoin(states, sizes, counts)

    def _encode(self, mel: Tensor, frames: Tensor) -> tuple[list[Tensor], Tensor]:
        hf = self.hf
        hidden = nn.functional.gelu(hf.conv1(mel.transpose(1, 2).to(hf.conv1.weight.dtype)))
        hidden = hidden.masked_fill(~valid(frames, hidden.size(2))[:, None, :], 0.0)
        hidden = nn.functional.gelu(hf.conv2(hidden)).transpose(1, 2)
        hidden = hidden + hf.embed_positions.weight[: hidden.size(1)]
        lengths = (frames + 1) // 2
        mask = None
        if int(lengths.min()) < hidden.size(1):
            mask = torch.zeros(len(lengths), 1, 1, hidden.size(1), dtype=hidden.dtype, device=hidden.device)
            mask.masked_fill_(~valid(lengths, hidden.size(1))[:, None, None, :], torch.finfo(hidden.dtype).min)
            mask = mask.expand(-1, 1, hidden.size(1), -1)
        states = [hidden]
        for layer in hf.layers:
            hidden = layer(hidden, attention_mask=mask, **self._extra)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            states.append(hidden)
        states[-1] = hf.layer_norm(hidden) if len(hf.layers) == hf.config.encoder_layers else hidden
        return states, lengths


class WaveStates(SpeechEncoder):
    """wav2vec 2.0, HuBERT, WavLM and the like, on waveforms normalised as `preprocessor_config.json` says.

    Models whose first convolution has a GroupNorm (the base sizes) take its statistics over time, padding included, in
    Hugging Face's implementation; here they are taken over each utterance's own frames.
    """

    def __init__(self, hf: Any, extractor: Any) -> None:
        super().__init__(hf, extractor)
        self.normalise: bool = bool(extractor.do_normalize)
        self.receptive_field = 1
        for kernel, stride in zip(hf.config.conv_kernel[::-1], hf.config.conv_stride[::-1], strict=True):
            self.receptive_field = (self.receptive_field - 1) * stride + kernel
        first = hf.feature_extractor.conv_layers[0]
        self.group_norm = isinstance(getattr(first, "layer_norm", None), nn.GroupNorm)
        if self.group_norm:
            first.layer_norm = MaskedGroupNorm(first.layer_norm)
        if hasattr(hf, "masked_spec_embed"):
            hf.masked_spec_embed.requires_grad_(False)
        self.depth = len(hf.encoder.layers)

    @property
    def layers(self) -> nn.ModuleList:
        """The Transformer layers."""
        return self.hf.encoder.layers

    def freeze_unused(self, layer: int) -> None:
        """See the base class: a stable-layer-norm encoder's final normalisation belongs to the last state only."""
        super().freeze_unused(layer)
        if getattr(self.hf.config, "do_stable_layer_norm", False):
            self.hf.encoder.layer_norm.requires_grad_(False)

    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the states, each (B, T, D), and (B,) lengths: what the convolutions make of the valid samples."""
        padding = ~valid(lengths, speech.size(1))
        speech = speech.float().masked_fill(padding, 0.0)
        if self.normalise:
            mean = speech.sum(1) / lengths
            speech = (speech - mean[:, None]).masked_fill(padding, 0.0)
            speech = speech / (speech.square().sum(1) / lengths + 1e-7).sqrt()[:, None]
        lengths = lengths.clamp(min=self.receptive_field)  # shorter ones count the silence after them
        speech = nn.functional.pad(speech, (0, max(0, int(lengths.max()) - speech.size(1))))
        if self.group_norm:
            first = self.hf.feature_extractor.conv_layers[0]
            first.layer_norm.lengths = (lengths - first.conv.kernel_size[0]) // first.conv.stride[0] + 1
        mask = valid(lengths, speech.size(1)).long() if int(lengths.min()) < speech.size(1) else None
        states: list[Tensor] = []
        hooks = [layer.register_forward_hook(lambda _m, _i, out: states.append(_tensor(out))) for layer in self.layers]
        hooks.append(self.layers[0].register_forward_pre_hook(lambda _m, args: states.append(args[0])))
        try:
            last = self.hf(speech.to(next(self.parameters()).dtype), attention_mask=mask).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        if len(self.layers) == self.depth:
            states[-1] = last
        return states, self.hf._get_feat_extract_output_lengths(lengths)


class MaskedGroupNorm(nn.Module):
    """A GroupNorm with one channel per group whose statistics leave out the padding.

    `lengths` (B,), the valid frames of the next input (B, C, T), is set by the caller before each forward.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        if norm.num_groups != norm.num_channels:
            raise UserError(f"speech model: a GroupNorm of {norm.num_groups} groups is unknown; use another model")
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.lengths: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise (B, C, T) over the valid part of T."""
        assert self.lengths is not None, "set by the caller"
        padding = ~valid(self.lengths, hidden.size(2))[:, None, :]
        count = self.lengths[:, None, None]
        mean = hidden.masked_fill(padding, 0.0).sum(2, keepdim=True) / count
        centred = (hidden - mean).masked_fill(padding, 0.0)
        scale = (centred.square().sum(2, keepdim=True) / count + self.eps).rsqrt()
        return centred * scale * self.weight[:, None] + self.bias[:, None]


def speech_width(model: str) -> int:
    """Columns of a speech encoder's features, read from its configuration alone.

    Raises:
        UserError: the model can't be found.
    """
    from transformers import AutoConfig

    return int(from_pretrained(AutoConfig, model, SPEECH).hidden_size)


def load_speech_encoder(model: str) -> SpeechEncoder:
    """Load a speech encoder in float32, from a folder (never touching the network) or from the hub.

    Hugging Face's own SpecAugment and LayerDrop are switched off. The global random state is left as it was.

    Raises:
        UserError: there is no such model, its family is not supported, or weights are missing.
    """
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

    config = from_pretrained(AutoConfig, model, SPEECH)
    config.layerdrop = config.encoder_layerdrop = 0.0
    config.apply_spec_augment = config.add_adapter = False  # the adapter of speech translation would change lengths
    options: dict[str, Any] = {"config": config, "output_loading_info": True}
    whisper = config.model_type == "whisper"
    if whisper:
        config.decoder_layers = 0  # else random weights would be drawn for a decoder that the folder may lack
    elif config.model_type not in WAVE_FAMILIES:
        raise UserError(
            f"speech model '{model}': its family {config.model_type} is not supported; take one of whisper, "
            + ", ".join(WAVE_FAMILIES)
        )
    extractor = from_pretrained(AutoFeatureExtractor, model, SPEECH)
    with torch.random.fork_rng(devices=[]):
        hf, info = from_pretrained(AutoModel, model, SPEECH, **options)
    hf = (hf.encoder if whisper else hf).float()
    check_complete(model, SPEECH, info, lambda name: name.startswith(_UNUSED))
    logging.info("hf_speech: %s, %d layers, from %s", config.model_type, hf.config.num_hidden_layers, model)
    return (WhisperStates if whisper else WaveStates)(hf, extractor)


class FrozenLayer:
    """One layer's states of a frozen encoder, as features.

    Args:
        model: folder or hub name of the speech encoder.
        layer: as :meth:`SpeechEncoder.index` counts.
        device: where it computes.
        pool: neighbouring frames that are averaged into one; the last one averages what is left.
    """

    def __init__(self, model: str, layer: int, device: str = "cpu", pool: int = 1) -> None:
        self.pool = pool
        self.encoder = load_speech_encoder(model)
        self.layer = self.encoder.index(layer)
        self.encoder.cut(self.layer)
        self.encoder.eval().requires_grad_(False).to(device)

    @torch.inference_mode()
    def __call__(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) samples and (B,) their numbers → (B, T, D) features, zero beyond each length, and (B,) lengths.

        With ``pool``, T and the lengths are those of the averages.
        """
        device = next(self.encoder.parameters()).device
        states, lengths = self.encoder(speech.to(device), lengths.to(device))
        pooled = Graph(states[self.layer], lengths).pooled(self.pool)
        return pooled.nodes.masked_fill(~valid(pooled.lengths, pooled.nodes.size(1))[:, :, None], 0.0), pooled.lengths


def _tensor(out: Tensor | tuple) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def _rejoin(states: list[Tensor], sizes: Tensor, counts: list[int]) -> tuple[list[Tensor], Tensor]:
    """Put the pieces of each utterance, consecutive rows of each state, together again."""
    per_piece = sizes.split(counts)
    joined = []
    for state in states:
        rows = []
        for block, lengths in zip(state.split(counts), per_piece, strict=True):
            rows.append(torch.cat([row[:size] for row, size in zip(block, lengths.tolist(), strict=True)]))
        joined.append(nn.utils.rnn.pad_sequence(rows, batch_first=True))
    return joined, torch.stack([lengths.sum() for lengths in per_piece])
