"""What the machine's GPUs are called, with a stand-in for nvidia-smi."""

from pathlib import Path

import pytest
import torch

from espnet_gmot import gpus

SMI = """#!/bin/sh
[ "$1 $2" = "-i GPU-b" ] && echo "NVIDIA H200, 141 GB" || exit 6
"""


@pytest.mark.parametrize(
    ("named", "there", "visible"),
    [(None, 2, ["0", "1"]), (None, 0, []), ("", 2, []), ("1", 2, ["1"]), ("GPU-b,GPU-a", 2, ["GPU-b", "GPU-a"])],
)
def test_visible_ones(monkeypatch: pytest.MonkeyPatch, named: str | None, there: int, visible: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.visible() == visible


def test_the_card_is_the_first_visible_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b,GPU-a")
    assert gpus.card() == "a GPU"  # a container without nvidia-smi
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpus.card() == "NVIDIA H200  141 GB"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-x")
    assert gpus.card() == "a GPU"
