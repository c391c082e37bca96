"""`frontend: hf_speech`: any Hugging Face speech encoder as an ESPnet frontend.

What every family has in common: an utterance's features do not depend on its batch mates, output lengths are exact,
and a frozen encoder is neither trained nor stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from torch import Tensor, nn

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.wav import sampling_rate
from espnet_gmot.speech.encoders import SpeechEncoder, load_speech_encoder
from espnet_gmot.transport.masks import valid

WEIGHTED_SUM = "weighted_sum"


class HFSpeechFrontend(AbsFrontend):
    """Features of a pretrained speech encoder: Whisper, wav2vec 2.0, HuBERT, WavLM and wav2vec 2.0's other siblings.

    A *frozen* encoder stays in eval mode, runs without gradients and is no registered submodule: it enters neither
    checkpoints nor optimizers nor DDP, and ESPnet's `init:` cannot overwrite it. Decoding therefore needs the folder
    that training had, as it needs its `config.json` anyway; a checksum of the weights is kept in the checkpoint, and
    loading it over other weights is an error. An encoder that is *not* frozen is an ordinary submodule. Hugging Face's
    own SpecAugment and LayerDrop are off (ESPnet has its own), and layers above the chosen one are not run.

    Args:
        model: folder of a Hugging Face model, or its name on the hub.
        freeze: whether to keep the encoder as it is.
        layer: index into [input of the first layer, output of layer 1, …, the encoder's output (after its final
            normalisation, where it has one)]; negative ones count from the end; or "weighted_sum", a learned softmax
            mixture of them all that starts from equal weights.
        fs: sampling rate of the speech in Hz ("16k" works); it has to be the model's. None takes the model's.

    Raises:
        UserError: the model is missing, incomplete or of an unknown family, there is no such layer, or `fs` differs.
    """

    def __init__(
        self,
        model: str | None = None,
        freeze: bool = True,
        layer: int | str = -1,
        fs: int | str | None = 16000,
    ) -> None:
        super().__init__()
        if not model:
            raise UserError(
                "frontend_conf.model: nothing given; name a folder or a Hugging Face model (openai/whisper-base …)"
            )
        self.model, self.freeze = str(model), bool(freeze)
        encoder = load_speech_encoder(self.model)
        self.layer = layer if layer == WEIGHTED_SUM else encoder.index(layer, f"or {WEIGHTED_SUM}")
        _check_rate(fs, encoder.sampling_rate, self.model)
        self.sampling_rate = encoder.sampling_rate
        if isinstance(self.layer, int):
            encoder.cut(self.layer)
        if self.freeze:
            encoder.eval().requires_grad_(False)
            self.__dict__["frozen_encoder"] = encoder  # past nn.Module's registration
            self.register_buffer("frozen_checksum", _checksum(encoder))
        else:
            self.trained_encoder = encoder
        if self.layer == WEIGHTED_SUM:
            self.layer_logits = nn.Parameter(torch.zeros(len(encoder.layers) + 1))
        self.after_init = _AfterInit(self.restore)  # last, see there

    @property
    def encoder(self) -> SpeechEncoder:
        """The wrapped encoder, frozen or not."""
        return self.__dict__["frozen_encoder"] if self.freeze else self.trained_encoder

    def output_size(self) -> int:
        """Width D of the features."""
        return self.encoder.width

    def forward(self, input: Tensor, input_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode waveforms.

        Args:
            input: (B, N) samples in [-1, 1].
            input_lengths: (B,) number of valid samples.

        Returns:
            (B, T, D) features, zero beyond each length, and (B,) their lengths in frames.
        """
        if input.dim() != 2:
            raise UserError(f"speech: shape {tuple(input.shape)}, but hf_speech takes one channel; mix it down to mono")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            states, lengths = self.encoder(input[:, : int(input_lengths.max())], input_lengths)
        if self.layer == WEIGHTED_SUM:
            feats = torch.einsum("l,lbtd->btd", self.layer_logits.softmax(0), torch.stack(states))
        else:
            feats = states[self.layer]
        return feats.masked_fill(~valid(lengths, feats.size(1))[:, :, None], 0.0), lengths

    def restore(self) -> None:
        """Take the pretrained weights again."""
        if not self.freeze:
            fresh = load_speech_encoder(self.model)
            if isinstance(self.layer, int):
                fresh.cut(self.layer)
            self.trained_encoder.load_state_dict(fresh.state_dict())
        if self.layer == WEIGHTED_SUM:
            nn.init.zeros_(self.layer_logits)

    def _apply(self, fn: Any, recurse: bool = True) -> HFSpeechFrontend:
        """Let `.to(device)` and its like reach the frozen encoder."""
        super()._apply(fn, recurse)
        if self.freeze:
            self.frozen_encoder._apply(fn)
        return self

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        stored = state_dict.get(f"{prefix}frozen_checksum")
        if self.freeze and stored is not None and stored.item() != self.frozen_checksum.item():
            raise UserError(
                f"frontend_conf.model: '{self.model}' does not hold the weights (or the preprocessing) of "
                "the training run; give the model that the experiment was trained with"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class _AfterInit(nn.Module):
    """Undoes ESPnet's `init: …`, which overwrites pretrained weights and then calls each module's own hook, parents
    before children: the last child's hook sees them all overwritten."""

    def __init__(self, restore: Callable[[], None]) -> None:
        super().__init__()
        self.espnet_initialization_fn = restore


def _checksum(encoder: SpeechEncoder) -> Tensor:
    """16 bits of the encoder's fingerprint as float32, which ESPnet's averaging of checkpoints leaves exact."""
    return torch.tensor(float(int(encoder.fingerprint[:4], 16)))


def _check_rate(fs: int | str | None, expected: int, model: str) -> None:
    if fs is not None and (rate := sampling_rate(fs, "frontend_conf.fs")) != expected:
        raise UserError(
            f"frontend_conf.fs: {rate} Hz, but '{model}' takes {expected} Hz; resample the speech (--fs {expected})"
        )
