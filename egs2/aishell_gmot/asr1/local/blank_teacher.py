#!/usr/bin/env python3
"""A control: a copy of a character BERT to which all characters are the same.

Usage: `blank_teacher.py MODEL OUT`.

The rows of all hanzi in the table of word embeddings become their mean, so a feature tells the character's place in the
sentence and the sentence's length, and nothing of what is said.
"""

import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file


def blank(model: Path, out: Path) -> None:
    """Write the copy; out is replaced."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(model, out)
    tokens = (model / "vocab.txt").read_text(encoding="utf8").splitlines()
    rows = [index for index, token in enumerate(tokens) if len(token) == 1 and "\u4e00" <= token <= "\u9fff"]
    weights = load_file(out / "model.safetensors")
    (name,) = (name for name in weights if name.endswith("embeddings.word_embeddings.weight"))
    weights[name][rows] = weights[name][rows].mean(0)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    blank(Path(sys.argv[1]), Path(sys.argv[2]))
