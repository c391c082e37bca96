"""Centring and whitening of teacher features, by statistics of the training transcripts.

The feature spaces of language models are anisotropic: all rows share a large mean and a few directions carry most of
the variance (Ethayarajh, EMNLP 2019, 1909.00512), so cosine costs bunch up near zero. Whitening as a cure: Su et al.
2021 (2103.15316), with shrinkage of the covariance (Ledoit and Wolf 2004) added here.
"""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.files import replacing

MODES = ("none", "centre", "whiten")
STATS_NAME = "teacher_stats.npz"
# Share of the mean eigenvalue mixed into the covariance: no direction is amplified beyond 1/sqrt(SHRINKAGE) = 10 times
# what an average one is, so directions that hold only rounding noise stay small.
SHRINKAGE = 0.01


@dataclass(frozen=True)
class FeatureStats:
    """Mean and whitening of each layer's features; L layers of D columns.

    Attributes:
        mean: (L, D) float32.
        whitening: (L, D, D) float32 symmetric (ZCA), or None for centring alone. Cosines do not depend on the
            rotation, so PCA whitening would give the same costs; ZCA stays closest to the original features.
        rows: how many rows they were taken from.
        source: what the rows were: model digest, layer(s), special tokens.
        key: identifies source, mode, shrinkage and transcripts.
    """

    mean: np.ndarray
    whitening: np.ndarray | None
    rows: int
    source: dict[str, Any] = field(default_factory=dict)
    key: str = ""

    @property
    def mode(self) -> str:
        """``centre`` or ``whiten``."""
        return "centre" if self.whitening is None else "whiten"

    def save(self, path: Path) -> None:
        """Write to ``path`` (.npz) in one step."""
        arrays: dict[str, Any] = {"mean": self.mean, "rows": np.asarray(self.rows), "shrinkage": np.asarray(SHRINKAGE)}
        if self.whitening is not None:
            arrays["whitening"] = self.whitening
        with replacing(path, "wb") as handle:
            np.savez(handle, note=json.dumps({"source": self.source, "key": self.key}), **arrays)

    @classmethod
    def load(cls, place: str | Path) -> "FeatureStats":
        """Read a ``teacher_stats.npz``, or that of a folder which dump-teacher wrote.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        path = Path(place).expanduser()
        path = path / STATS_NAME if path.is_dir() else path
        if not path.is_file():
            raise UserError(
                f"teacher statistics {path}: no such file; run dump-teacher --normalise centre or whiten for the "
                "training set first, and give its --out folder"
            )
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
                note = json.loads(str(data["note"]))
                whitening = data.get("whitening")
                return cls(data["mean"], whitening, int(data["rows"]), note["source"], note["key"])
        except Exception as error:  # zipfile, numpy, json: what a spoilt file raises depends on where it is spoilt
            raise UserError(
                f"teacher statistics {path}: damaged ({error}); make them again with dump-teacher"
            ) from error


class Normaliser:
    """Applies `FeatureStats` to features; a plain object, like the teacher that holds it."""

    def __init__(self, stats: FeatureStats) -> None:
        self._mean = torch.from_numpy(stats.mean)
        self._whitening = None if stats.whitening is None else torch.from_numpy(stats.whitening)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """(…, L*D) features, layers side by side → the same shape, each layer centred or whitened by itself.

        Raises:
            UserError: the statistics are of another width or number of layers.
        """
        if features.shape[-1] != self._mean.numel():
            raise UserError(
                f"teacher statistics are of {self._mean.shape[0]} layer(s) of width {self._mean.shape[1]}, the "
                f"features have {features.shape[-1]} columns; make them with the same teacher and layers"
            )
        if self._mean.device != features.device:
            self._mean = self._mean.to(features.device)
            self._whitening = None if self._whitening is None else self._whitening.to(features.device)
        rows = features.unflatten(-1, self._mean.shape) - self._mean
        if self._whitening is not None:
            rows = torch.einsum("...ld,lde->...le", rows, self._whitening)
        return rows.flatten(-2)


def shrunk_whitening(covariance: np.ndarray, shrinkage: float = SHRINKAGE) -> np.ndarray:
    """ZCA whitening of a covariance.

    Args:
        covariance: (D, D) symmetric, positive semi-definite.
        shrinkage: ε in ((1 - ε)·C + ε·tr(C)/D·I)^(-1/2), above 0 to 1.

    Returns:
        (D, D) symmetric W. Along an eigenvector of C with eigenvalue λ, whitened rows have the variance
        λ / ((1 - ε)·λ + ε·tr(C)/D): nearly 1 wherever λ is far above ε times the mean eigenvalue.

    Raises:
        UserError: the rows did not vary at all.
    """
    values, vectors = np.linalg.eigh(covariance)
    scale = values.mean()
    if not scale > 0:
        raise UserError(
            "--normalise whiten: the teacher's features do not vary in these transcripts; give more of them"
        )
    shrunk = (1 - shrinkage) * values.clip(min=0) + shrinkage * scale
    return (vectors / np.sqrt(shrunk)) @ vectors.T
