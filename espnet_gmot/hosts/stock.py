"""Decodes one input with an ESPnet experiment, and says what came out.

``export`` runs this file as a script, outside the package and with `espnet_gmot` made impossible to import, to see
what people without the plugin will get; and it calls :func:`decode` itself to see what the original experiment gives.
So nothing of the package may be imported here, and ESPnet only inside the functions.
"""

import importlib.abc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import yaml

PLUGIN = "espnet_gmot"


class Decoded(NamedTuple):
    """What an experiment makes of one input.

    Attributes:
        text: the best hypothesis.
        tokens: its tokens.
        log_probs: (T, V) log-probabilities of the CTC head; (T, width) the encoder's output where there is no head.
    """

    text: str
    tokens: list[str]
    log_probs: np.ndarray


def decode(config: str | Path, model_file: str | Path, speech: np.ndarray, *, beam_size: int = 5) -> Decoded:
    """Decode one input through ESPnet's own ``Speech2Text``, on the CPU.

    Args:
        config: an experiment's configuration.
        model_file: its parameters.
        speech: (samples,) a waveform, or (frames, width) features where the model has no frontend.
        beam_size: hypotheses kept.

    Returns:
        The best hypothesis and the log-probabilities behind it.
    """
    import torch
    from espnet2.bin.asr_inference import Speech2Text

    plain_ctc = yaml.safe_load(Path(config).read_text(encoding="utf8")).get("decoder") is None
    speech2text = Speech2Text(
        str(config), str(model_file), beam_size=beam_size, ctc_weight=1.0 if plain_ctc else 0.4, lm_weight=0.0
    )
    speech = speech.astype(np.float32)
    results = speech2text(speech)
    # with intermediate CTC, ESPnet returns (hypotheses, intermediate results)
    text, tokens, *_ = (results[0] if isinstance(results, tuple) else results)[0]
    model = speech2text.asr_model
    with torch.no_grad():
        encoded, _ = model.encode(torch.tensor(speech)[None], torch.tensor([len(speech)]))
        encoded = encoded[0] if isinstance(encoded, tuple) else encoded
        log_probs = encoded if model.ctc is None else model.ctc.log_softmax(encoded)
    return Decoded(text or "", list(tokens), log_probs[0].numpy())


class Absent(importlib.abc.MetaPathFinder):
    """Makes a package impossible to import, however it is installed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Refuse the package and all that is in it.

        Raises:
            ModuleNotFoundError: for the package, as if it weren't installed.
        """
        if fullname.partition(".")[0] == self.name:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def main(argv: list[str]) -> None:
    """CONFIG MODEL_FILE INPUT.npy OUTPUT: decode without the plugin; write OUTPUT.json and OUTPUT.npy."""
    config, model_file, speech, output = argv
    sys.meta_path.insert(0, Absent(PLUGIN))
    decoded = decode(config, model_file, np.load(speech, allow_pickle=False))
    if any(name.partition(".")[0] == PLUGIN for name in sys.modules):
        raise RuntimeError(f"{PLUGIN} was imported: this decoding proves nothing")
    np.save(f"{output}.npy", decoded.log_probs)
    Path(f"{output}.json").write_text(json.dumps({"text": decoded.text, "tokens": decoded.tokens}), encoding="utf8")


if __name__ == "__main__":
    main(sys.argv[1:])
