"""How ESPnet's programs are run, by a program of our own."""

import sys
from pathlib import Path

import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.recipe.jobs import Job, run_one, run_parts

PROGRAM = """
import os, sys

IMPORTED_BY = os.getpid()

def main(cmd):
    import torch

    print("imported by itself:", IMPORTED_BY == os.getpid(), "GPUs:", os.environ.get("CUDA_VISIBLE_DEVICES"))
    print("options:", *cmd, "threads:", torch.get_num_threads())
    if "--use" in cmd:
        print("sum on the GPU:", torch.ones(3, device="cuda").sum().item())
    if "--fail" in cmd:
        raise RuntimeError("it broke")
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a program's module that nobody has imported yet."""
    name = f"program_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return name


def test_a_program_without_gpu_is_forked_from_one_import(program: str, tmp_path: Path) -> None:
    told = []
    run_one(Job(program, ("--a", "b c"), tmp_path / "log"), echo=told.append)
    assert told[-2:] == ["imported by itself: False GPUs: None", "options: --a b c threads: 2"]
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert log.startswith(f"# python3 -m espnet_gmot -m {program} --a 'b c'\n")
    assert program in sys.modules


def test_a_program_on_a_gpu_has_an_interpreter_of_its_own(program: str, tmp_path: Path) -> None:
    """ESPnet asks for CUDA while it is imported, and CUDA doesn't survive a fork."""
    told = []
    run_one(Job(program, ("--a",), tmp_path / "log", gpu=1), echo=told.append)
    assert told[-2:] == ["imported by itself: True GPUs: 1", "options: --a threads: 2"]
    with pytest.raises(UserError, match=rf"^{program} failed: RuntimeError: it broke \(all of it: "):
        run_one(Job(program, ("--fail",), tmp_path / "log", gpu=1), echo=told.append)
    assert program not in sys.modules


def test_parts_on_gpus_have_them_in_turn(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    jobs = [Job(program, (f"--part={part}",), tmp_path / f"log.{part}", gpu=part % 2) for part in range(3)]
    folders = [tmp_path / str(part) for part in range(3)]
    for folder in folders:
        folder.mkdir()
    assert run_parts(jobs, folders, processes=2, unit="part")
    assert not run_parts(jobs, folders, processes=2, unit="part")
    assert program not in sys.modules
    for part, gpu in enumerate("474"):
        log = (tmp_path / f"log.{part}").read_text(encoding="utf-8")
        assert f"imported by itself: True GPUs: {gpu}\noptions: --part={part} threads: 1\n" in log


def test_gpus_that_are_missing(program: str, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="--ngpu 1: torch sees 0 GPUs; give --ngpu 0 to train on the CPU"):
        run_one(Job(program, (), tmp_path / "log", needed_gpus=1), echo=lambda line: None)


def test_on_a_gpu_after_this_process_has_asked_for_it(program: str, tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():  # asking is what ESPnet's import does
        pytest.skip("no GPU here")
    told = []
    run_one(Job(program, ("--use",), tmp_path / "log", needed_gpus=1), echo=told.append)
    assert told[-1] == "sum on the GPU: 3.0"
