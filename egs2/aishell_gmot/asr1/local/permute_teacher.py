#!/usr/bin/env python3
"""A control: a copy of a character BERT in which each character has another one's rows.

Usage: `permute_teacher.py MODEL OUT [SEED]`.

Weights stay as they are; the vocabulary's hanzi change places. Whatever the copy teaches, it isn't which characters are
alike, nor which go together.
"""

import json
import random
import shutil
import sys
from pathlib import Path


def permute(model: Path, out: Path, seed: int = 0) -> None:
    """Write the copy; out is replaced."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(model, out)
    tokens = (model / "vocab.txt").read_text(encoding="utf8").splitlines()
    hanzi = [token for token in tokens if len(token) == 1 and "\u4e00" <= token <= "\u9fff"]
    others = dict(zip(hanzi, random.Random(seed).sample(hanzi, len(hanzi)), strict=True))
    places = {others.get(token, token): index for index, token in enumerate(tokens)}
    (out / "vocab.txt").write_text("".join(f"{token}\n" for token in places), encoding="utf8")
    fast = out / "tokenizer.json"
    if fast.is_file():
        known = json.loads(fast.read_text(encoding="utf8"))
        known["model"]["vocab"] = places
        fast.write_text(json.dumps(known, ensure_ascii=False), encoding="utf8")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    permute(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 0)
