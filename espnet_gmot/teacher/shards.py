"""A data set's distinct transcripts, split into arks that can be computed, checked and kept one by one."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_gmot.errors import UserError
from espnet_gmot.teacher.archive import check_archive, write_archive, write_json
from espnet_gmot.teacher.plm import PLMTeacher

_LOG = logging.getLogger(__name__)
# Few enough arks that a reader may keep all of them open, small enough that a killed run loses little.
_MOST_SHARDS, _SMALLEST_SHARD = 64, 256


@dataclass(frozen=True)
class Shard:
    """One ark's worth of distinct transcripts.

    Attributes:
        path: the ark; what is known of it goes to the same name with ``.json``.
        keys: for each transcript the first utterance that has it.
        texts: the transcripts, sorted by length.
        features: what decides the features (model digest, layer, special tokens, and where they are not the default,
            normalisation and precision).
        width: their width.
    """

    path: Path
    keys: list[str]
    texts: list[str]
    features: dict[str, Any]
    width: int

    @property
    def digest(self) -> str:
        """Identifies the shard's content."""
        return hashlib.sha256(json.dumps([self.features, self.texts]).encode()).hexdigest()

    def finished(self) -> dict[str, Any] | None:
        """What is known of the ark if it is whole and has this very content, otherwise None."""
        note = read_note(self.path.with_suffix(".json"))
        if note is None or note["digest"] != self.digest:
            return None
        try:
            check_archive(self.path, note["offsets"], self.width)
        except UserError as error:
            _LOG.warning("computing this part again: %s", error)
            return None
        return note


def read_note(path: Path) -> dict[str, Any] | None:
    """What is known of an ark, or None where nothing readable is."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def dump_shard(teacher: PLMTeacher, shard: Shard, batch_size: int, advance: Callable[[int], Any]) -> None:
    """Compute and write one shard; ``advance`` is told how many transcripts each batch had."""
    total, rows = np.zeros(shard.width), 0

    def matrices() -> Iterator[tuple[str, np.ndarray]]:
        nonlocal rows
        for start in range(0, len(shard.texts), batch_size):
            part = slice(start, start + batch_size)
            features, lengths = teacher(shard.texts[part], shard.keys[part])
            for key, matrix, length in zip(shard.keys[part], features.cpu().numpy(), lengths.tolist(), strict=True):
                np.add(total, matrix[:length].sum(axis=0, dtype=np.float64), out=total)
                rows += length
                yield key, matrix[:length]
            advance(lengths.numel())

    offsets = write_archive(shard.path, matrices(), shard.features.get("precision", "float32"))
    note = {"digest": shard.digest, "features": shard.features, "rows": rows, "sum": total.tolist(), "offsets": offsets}
    write_json(shard.path.with_suffix(".json"), note)


def plan_shards(transcripts: dict[str, str], out: Path, features: dict[str, Any], width: int) -> list[Shard]:
    """Distribute the distinct transcripts over arks, sorted by length so that batches need little padding."""
    first: dict[str, str] = {}
    for utterance, text in transcripts.items():
        first.setdefault(text, utterance)
    texts = sorted(first, key=lambda text: (len(text), text))
    size = max(_SMALLEST_SHARD, math.ceil(len(texts) / _MOST_SHARDS))
    parts = [texts[start : start + size] for start in range(0, len(texts), size)]
    return [
        Shard(out / f"teacher.{i}.ark", [first[text] for text in part], part, features, width)
        for i, part in enumerate(parts)
    ]
