"""Where a dump's statistics come from: measured over its own transcripts, or borrowed from another dump."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.teacher.normalise import SHRINKAGE, FeatureStats, shrunk_whitening
from espnet_gmot.teacher.plm import PLMTeacher
from espnet_gmot.transport.masks import valid

_LOG = logging.getLogger(__name__)
# 20000 transcripts of 14 characters are 280 rows for each of 1000 columns; more only costs time.
MOST_TEXTS = 20_000


def stats_key(source: dict[str, Any], mode: str, texts: Iterable[str]) -> str:
    """Identifies statistics before they are computed: see `FeatureStats.key`."""
    return hashlib.sha256(json.dumps([source, mode, SHRINKAGE, MOST_TEXTS, sorted(texts)]).encode()).hexdigest()


def sample_texts(texts: Sequence[str], most: int = MOST_TEXTS) -> list[str]:
    """All distinct transcripts, or ``most`` of them spread evenly over all lengths; sorted by length."""
    ordered = sorted(set(texts), key=lambda text: (len(text), text))
    if len(ordered) <= most:
        return ordered
    return [ordered[i * len(ordered) // most] for i in range(most)]


def measure(teacher: PLMTeacher, texts: Sequence[str], *, whiten: bool, batch_size: int) -> FeatureStats:
    """Statistics of a teacher's rows over `sample_texts` of the transcripts, accumulated in double precision.

    Args:
        teacher: any number of layers; its own ``stats`` must be None.
        texts: transcripts; equal ones count once.
        whiten: measure covariances too.
        batch_size: transcripts per forward pass.

    Returns:
        Statistics without source and key.

    Raises:
        UserError: whatever the teacher raises, or `shrunk_whitening`.
    """
    from tqdm import tqdm

    chosen = sample_texts(texts)[::-1]  # the longest first: whatever is too long shows at once
    layers, width = len(teacher.layers), teacher.width // len(teacher.layers)
    shift, rows = None, 0
    total = torch.zeros(layers, 1, width, dtype=torch.float64, device=teacher.device)
    scatter = torch.zeros(layers, width, width, dtype=torch.float64, device=teacher.device)
    with tqdm(total=len(chosen), desc="teacher statistics", unit="text", mininterval=1, dynamic_ncols=True) as bar:
        for start in range(0, len(chosen), batch_size):
            features, lengths = teacher(chosen[start : start + batch_size])
            inside = valid(lengths, features.shape[1])
            if not inside.any():
                continue  # nothing to read in any of them
            block = features[inside].double().unflatten(-1, (layers, width)).transpose(0, 1)
            shift = block.mean(dim=1, keepdim=True) if shift is None else shift  # so that the scatter does not cancel
            block = block - shift
            total += block.sum(dim=1, keepdim=True)
            rows += block.shape[1]
            if whiten:
                scatter.baddbmm_(block.transpose(1, 2), block)
            bar.update(lengths.numel())
    if shift is None:
        raise UserError("no transcript holds anything for the teacher to read; check --text and --nlsyms_txt")
    offset = total / rows
    mean = (shift + offset)[:, 0].float().cpu().numpy()
    if not whiten:
        return FeatureStats(mean, None, rows)
    if rows < 10 * width:
        _LOG.warning("whitening %d columns by only %d rows: give more transcripts", width, rows)
    covariances = (scatter / rows - offset.transpose(1, 2) @ offset).cpu().numpy()
    whitening = np.stack([shrunk_whitening(each) for each in covariances]).astype(np.float32)
    return FeatureStats(mean, whitening, rows)


def borrow(place: str, mode: str, source: dict[str, Any]) -> FeatureStats:
    """Another dump's statistics, made sure to fit.

    Args:
        place: its folder, or the file.
        mode: what they shall be used for, ``centre`` or ``whiten``.
        source: model digest, layer(s) and special tokens of the features to normalise.

    Raises:
        UserError: there are none, or they were made for another mode or source.
    """
    stats = FeatureStats.load(place)
    if stats.mode != mode:
        raise UserError(f"--stats {place}: made with --normalise {stats.mode}, not {mode}; give the same")
    if stats.source != source:
        changed = [{"model_digest": "model"}.get(k, k) for k in source if stats.source.get(k) != source[k]]
        raise UserError(f"--stats {place}: made with another {' and '.join(changed)}; give the same to both dumps")
    return stats


def provide(path: Path, key: str, source: dict[str, Any], measured: Callable[[], FeatureStats]) -> str:
    """Have the statistics called ``key`` at ``path``: kept where they are there already, otherwise made and saved.

    Args:
        path: the file.
        key: see `stats_key`.
        source: what the rows are of, noted in the file.
        measured: gives the statistics.

    Returns:
        ``path``, for `PLMTeacher`.
    """
    try:
        there = path.is_file() and FeatureStats.load(path).key == key
    except UserError as error:
        _LOG.warning("%s", error)
        there = False
    if not there:
        replace(measured(), source=source, key=key).save(path)
    return str(path)
