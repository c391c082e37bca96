"""Where the acoustic graph comes from: named places of an ESPnet model."""

import torch

from espnet_gmot.errors import UserError


class Tap:
    """Keeps the output of one named place of an ESPnet ASR model during a forward pass.

    Args:
        model: the ESPnet model.
        name: ``encoder.N`` (block N of ``encoder.encoders``) or ``frontend``. The output of the whole encoder needs
            no tap: the host sees it in ``encode``.

    Raises:
        UserError: where the model has no such place.
    """

    def __init__(self, model: torch.nn.Module, name: str) -> None:
        self.name = name
        self.module = _place(model, name)
        self.output: object = None

    def __enter__(self) -> "Tap":
        self.output = None
        self._hook = self.module.register_forward_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _keep(self, module: torch.nn.Module, inputs: object, output: object) -> None:
        if self.name == "frontend":
            # a copy: ESPnet masks and normalises in place what needs no gradient
            output = (output[0].clone(), output[1])
        self.output = output

    def features(self, encoder_lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What was kept: features (B, T, width) and their lengths (B,).

        Args:
            encoder_lengths: (B,) frames of the encoder's output, which every block shares.

        Raises:
            UserError: where the block didn't run.
        """
        output = self.output
        if output is None:
            raise UserError(f"gmot_conf: tap: '{self.name}' was skipped in this step: set layer_drop_rate: 0.0")
        if self.name == "frontend":
            return output[0], output[1]
        while isinstance(output, tuple):  # blocks give (x, mask), x itself (features, positions) where relative
            output = output[0]
        return output, encoder_lengths


def width(model: torch.nn.Module, name: str, encoder_width: int) -> int:
    """Columns of the features at a place of the model.

    Args:
        model: the ESPnet model.
        name: ``encoder``, ``encoder.N`` or ``frontend``.
        encoder_width: columns of the encoder's blocks and output.

    Raises:
        UserError: where the model has no such place.
    """
    if name == "encoder":
        return encoder_width
    place = _place(model, name)
    return place.output_size() if name == "frontend" else encoder_width


def _place(model: torch.nn.Module, name: str) -> torch.nn.Module:
    if name == "frontend":
        if model.frontend is None:
            raise UserError("gmot_conf: tap: 'frontend', but this model reads extracted features: use tap: encoder")
        return model.frontend
    blocks = getattr(model.encoder, "encoders", None)
    kind, _, number = name.partition(".")
    if kind != "encoder" or not number.isdecimal() or blocks is None:
        raise UserError(f"gmot_conf: tap: unknown place '{name}': use encoder, encoder.N or frontend")
    if int(number) >= len(blocks):
        raise UserError(f"gmot_conf: tap: '{name}', but the encoder's blocks are 0 to {len(blocks) - 1}")
    return blocks[int(number)]
