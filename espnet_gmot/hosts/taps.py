"""Where the acoustic graph comes from: named places of an ESPnet model."""

import operator
from typing import Any

import torch

from espnet_gmot.errors import UserError

#: Where ESPnet's encoders keep their blocks: OpenAI's Whisper, torchaudio's HuBERT, all of ESPnet's own.
_BLOCKS = ("encoders.blocks", "hubert_pretrain_model.wav2vec2.encoder.transformer.layers", "encoders")


class Tap:
    """Keeps the output of one named place of an ESPnet ASR model during a forward pass.

    Args:
        model: the ESPnet model.
        name: ``encoder.N`` (block N of ESPnet's Conformer, Branchformer, Transformer and their variants, of Whisper
            or of torchaudio's HuBERT) or ``frontend``. The output of the whole encoder needs no tap: the host sees it
            in ``encode``.

    Raises:
        UserError: where the model has no such place.
    """

    def __init__(self, model: Any, name: str) -> None:
        self.name, self.module, self.encoder = name, _place(model, name), model.encoder
        self.output: Any = None
        self.lengths: torch.Tensor | None = None

    def __enter__(self) -> "Tap":
        self.output = self.lengths = None
        self._hooks = [self.module.register_forward_hook(self._keep)]
        if self.name != "frontend":
            self._hooks.append(self.encoder.register_forward_hook(self._keep_lengths))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, module: torch.nn.Module, inputs: object, output: Any) -> None:
        if self.name == "frontend":
            # a copy: ESPnet masks and normalises in place what needs no gradient
            output = (output[0].clone(), output[1])
        self.output = output

    def _keep_lengths(self, module: torch.nn.Module, inputs: object, output: tuple) -> None:
        self.lengths = output[1]  # before a postencoder, which may change the frame rate

    def features(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What was kept: features (B, T, width) and their lengths (B,).

        Raises:
            UserError: where the block didn't run.
        """
        if self.output is None:
            raise UserError(f"gmot_conf: tap: '{self.name}' was skipped in this step: set layer_drop_rate: 0.0")
        if self.name == "frontend":
            return self.output
        # ESPnet's blocks give (features, mask, …), features being (features, positions) where these are relative;
        # the mask counts where frames are dropped between the blocks (ctc_trim)
        assert self.lengths is not None, "the encoder ran"
        nodes, *more = self.output if isinstance(self.output, tuple) else (self.output,)
        nodes = nodes[0] if isinstance(nodes, tuple) else nodes
        if more and isinstance(more[0], torch.Tensor) and more[0].shape == (nodes.shape[0], 1, nodes.shape[1]):
            return nodes, more[0].sum((1, 2))
        return nodes, self.lengths


def width(model: Any, name: str, encoded_width: int) -> int:
    """Columns of the features at a place of the model.

    Args:
        model: the ESPnet model.
        name: ``encoder``, ``encoder.N`` or ``frontend``.
        encoded_width: columns of what the model's ``encode`` gives.

    Raises:
        UserError: where the model has no such place.
    """
    if name == "encoder":
        return encoded_width
    place: Any = _place(model, name)
    return int((place if name == "frontend" else model.encoder).output_size())


def _place(model: Any, name: str) -> torch.nn.Module:
    if name == "frontend":
        if model.frontend is None:
            raise UserError("gmot_conf: tap: 'frontend', but this model reads extracted features: use tap: encoder")
        return model.frontend
    kind, _, number = name.partition(".")
    if kind != "encoder" or not number.isdecimal():
        raise UserError(f"gmot_conf: tap: unknown place '{name}': use encoder, encoder.N or frontend")
    blocks = _blocks(model.encoder, name)
    if int(number) >= len(blocks):
        raise UserError(f"gmot_conf: tap: '{name}', but the encoder's blocks are 0 to {len(blocks) - 1}")
    return blocks[int(number)]


def _blocks(encoder: torch.nn.Module, name: str) -> torch.nn.Sequential | torch.nn.ModuleList:
    """The blocks of an ESPnet encoder, in the order in which they run."""
    if getattr(encoder, "block_size", 0):
        raise UserError(f"gmot_conf: tap: '{name}', but this encoder cuts its input: block_size: 0, or tap: encoder")
    for path in _BLOCKS:
        try:
            blocks = operator.attrgetter(path)(encoder)
        except AttributeError:
            continue
        if isinstance(blocks, (torch.nn.Sequential, torch.nn.ModuleList)):
            return blocks
    raise UserError(
        f"gmot_conf: tap: '{name}', but the blocks of {type(encoder).__name__} are unknown: use tap: encoder"
    )
