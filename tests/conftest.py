"""Fixtures that every test may use; the optional shared material skips, saying so, where it is absent."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SHARED = Path(os.environ.get("GMOT_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent (set GMOT_SHARED to a folder that holds it)")
    return path


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Same numbers in every run, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The optional folder of real models and data."""
    return _shared(".")


@pytest.fixture(scope="session")
def shared_plm() -> Path:
    """A real Chinese character PLM (BERT, 384-d)."""
    return _shared("models/e5-small-zh-char")


@pytest.fixture(scope="session")
def shared_whisper() -> Path:
    """A real Whisper encoder (512-d, 50 frames/s)."""
    return _shared("models/whisper-base-encoder")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """701 real AISHELL utterances, packed as AISHELL-1 is distributed."""
    return _shared("data/data_aishell_mini.tgz")
