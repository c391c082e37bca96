"""A tiny random character BERT: real code paths of transformers, milliseconds to load."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import pytest
import torch

from espnet_gmot.teacher.corpus import build_tokenizer

TEXT = ["今天天气很好", "我们去看书", "他在图书馆看书", "明天天气不好", "我们在家看电视"]


class Dumped:
    """What dump-teacher left in a folder: ``info`` is teacher.json, ``rows[utterance]`` a (U, D) matrix."""

    def __init__(self, folder: Path) -> None:
        self.info: dict[str, Any] = json.loads((folder / "teacher.json").read_text(encoding="utf-8"))
        self.mean = np.asarray(self.info["mean"], dtype=np.float32)
        self.rows: Mapping[str, np.ndarray] = kaldiio.load_scp(str(folder / "teacher.scp"))

    def stacked(self) -> np.ndarray:
        """(all rows, D) in double precision."""
        return np.concatenate([self.rows[utterance] for utterance in self.rows]).astype(np.float64)


def save_bert(folder: Path, sentences: list[str], seed: int = 0) -> Path:
    """Save a random BERT of 3 layers, width 32, with the characters of ``sentences`` as its vocabulary."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    tokenizer = build_tokenizer(sentences)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_plm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random character BERT that knows the characters of `TEXT`, ASCII letters and digits."""
    return save_bert(tmp_path_factory.mktemp("plm") / "bert", TEXT)
