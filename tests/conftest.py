"""Fixtures that every test may use; the optional shared material skips, saying so, where it is absent."""

import contextlib
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if not torch.cuda.is_available():  # before anything imports Triton: its kernels run in its interpreter
    os.environ.setdefault("TRITON_INTERPRET", "1")
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


@pytest.fixture(scope="session", autouse=True)
def _logged_deprecations_are_warnings() -> Iterator[None]:
    """transformers logs its deprecations: as warnings they can fail a test, also while hub.py keeps it quiet."""
    logged = logging.Logger.warning

    def warning(logger: logging.Logger, message: object, *args: object, **options: object) -> None:
        if logger.name.startswith("transformers") and "deprecated" in str(message):
            warnings.warn_explicit(str(message), FutureWarning, logger.name, 0, module="transformers")
        logged(logger, message, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.Logger, "warning", warning)
        yield


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


@pytest.fixture(scope="session")
def task() -> ModuleType:
    """ESPnet's ASR task module, with the plugin registered as the launcher does it."""
    from espnet_gmot.hosts.register import register

    register()
    import espnet2.tasks.asr as module

    # ESPnet's transducer asks for warprnnt_pytorch, which PyPI doesn't have: its own numba loss has the same interface
    with contextlib.suppress(ModuleNotFoundError):  # ESPnet 202301 hasn't
        from espnet2.asr.transducer.rnnt_multi_blank.rnnt_multi_blank import RNNTLossNumba

        stand_in = ModuleType("warprnnt_pytorch")
        stand_in.RNNTLoss = RNNTLossNumba
        sys.modules.setdefault("warprnnt_pytorch", stand_in)
    return module


@pytest.fixture
def checkout() -> str:
    """An ESPnet checkout that has asr.sh."""
    root = os.environ.get("ESPNET_ROOT", "")
    if not (Path(root) / "egs2/TEMPLATE/asr1/asr.sh").is_file() or not root:
        pytest.skip("ESPNET_ROOT names no ESPnet checkout (a clone of github.com/espnet/espnet)")
    if not shutil.which("sox"):
        pytest.skip("asr.sh perturbs speed with sox, which isn't installed")
    return root
