"""What a rerun keeps: everything by the same versions; by others, trainings only, and it says so."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from espnet_gmot.marks import MARK, is_complete, made_by, set_complete
from espnet_gmot.recipe import jobs, train
from espnet_gmot.recipe.jobs import Job, run_parts
from espnet_gmot.recipe.layout import Layout

PROGRAM = """
import pathlib
def main(cmd):
    path = pathlib.Path(cmd[0]) / "runs"
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + "x")
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job of a program that counts its runs."""
    (tmp_path / "counting_program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Job("counting_program", (str(tmp_path / "out"),), tmp_path / "log")


@pytest.fixture
def upgrade(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that installs another version."""

    def upgrade(version: str) -> None:
        monkeypatch.setattr(jobs, "__version__", version)

    return upgrade


def runs(job: Job) -> int:
    return len(Path(job.argv[0], "runs").read_text())


def test_parts_are_kept_until_the_version_changes(
    job: Job, upgrade: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def again() -> bool:
        return run_parts([job], [Path(job.argv[0])], processes=1, unit="part")

    upgrade("1.0")
    assert again() and not again() and runs(job) == 1
    capsys.readouterr()
    upgrade("1.1")
    assert again() and runs(job) == 2
    said = capsys.readouterr().out
    assert "parts by espnet_gmot 1.0, espnet 20" in said and "but espnet_gmot 1.1, espnet 20" in said
    assert not again() and runs(job) == 2 and "made again" not in capsys.readouterr().out


def test_parts_of_an_unnamed_version_are_made_again(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    set_complete(job.argv[0], job.fingerprint())  # as before versions were noted
    assert run_parts([job], [Path(job.argv[0])], processes=1, unit="part") and runs(job) == 1
    assert "parts by another version are there" in capsys.readouterr().out


def test_a_training_is_kept_whoever_trained_it(
    job: Job, upgrade: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(job.argv[0])

    def again(job: Job) -> None:
        train.run_training(cast(Layout, SimpleNamespace(run_args="./run.sh")), job, folder, 11)

    upgrade("1.0")
    again(job)
    capsys.readouterr()
    again(job)
    assert capsys.readouterr().out == f"{folder}: trained already (delete {folder}/{MARK} to train on)\n"
    upgrade("1.1")
    again(job)
    said = capsys.readouterr().out
    assert "trained already by espnet_gmot 1.0" in said and "kept although espnet_gmot 1.1" in said
    assert "delete the folder to train anew" in said and runs(job) == 1
    again(Job(job.module, (*job.argv, "--other"), job.log))  # another command isn't finished
    assert runs(job) == 2 and made_by(folder).startswith("espnet_gmot 1.1")
    assert not is_complete(folder, job.fingerprint())
