"""What a rerun keeps: everything by the same versions; by others, trainings only, and it says so."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.shards import Shard
from espnet_gmot.marks import MARK, is_complete, made_by, of_other_features, set_complete
from espnet_gmot.recipe import jobs, train
from espnet_gmot.recipe.jobs import Job, run_parts
from espnet_gmot.recipe.layout import Layout

LAYOUT = cast(Layout, SimpleNamespace(run_args="./run.sh"))
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

    again = partial(train.run_training, LAYOUT, directory=folder, stage=11)
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


def list_features(folder: Path, layer: int) -> Path:
    """A table of features of one layer, as a dump writes it."""
    shard = Shard(folder / "feats.0.ark", ["u"], ["u"], {"layer": layer}, 2)
    shard.write([("u", np.full((3, 2), layer, dtype=np.float32))], {})
    (folder / "feats.scp").write_text(f"u {folder}/feats.0.ark:2\n")
    return folder / "feats.scp"


def test_features_of_another_layer_are_other_data(job: Job, tmp_path: Path) -> None:
    """The table is the same, byte by byte; a mark from before the layer was noted counts, and is made whole."""
    scp = list_features(tmp_path, 1)
    job = Job(job.module, (*job.argv, "--data", f"{scp},speech,kaldi_ark"), job.log)
    folder = Path(job.argv[0])

    def again() -> bool:
        return run_parts([job], [folder], processes=1, unit="part")

    assert again() and not again()
    first = job.fingerprint()
    list_features(tmp_path, 2)
    assert job.fingerprint() != first and not is_complete(folder, job.fingerprint())
    assert again() and not again() and runs(job) == 2
    set_complete(folder, job.fingerprint().split()[0], jobs.versions())
    assert not again() and is_complete(folder, job.fingerprint())
    list_features(tmp_path, 1)
    assert job.fingerprint() == first and again() and runs(job) == 3


def test_what_was_trained_on_replaced_features_is_no_training_of_the_new_ones(job: Job, tmp_path: Path) -> None:
    scp = list_features(tmp_path, 1)
    job = Job(job.module, (*job.argv, "--data", f"{scp},speech,kaldi_ark"), job.log)
    folder = Path(job.argv[0])
    again = partial(train.run_training, LAYOUT, job, folder, 11)
    again()
    set_complete(folder, job.fingerprint().split()[0], jobs.versions())  # as of old
    again()
    assert runs(job) == 1 and is_complete(folder, job.fingerprint())
    list_features(tmp_path, 2)
    with pytest.raises(UserError, match=r"trained on features that were replaced since .*another --asr_tag"):
        again()
    list_features(tmp_path, 1)
    again()
    assert runs(job) == 1
    assert not of_other_features(folder, "another command") and not of_other_features(tmp_path, job.fingerprint())


def test_archives_without_notes_are_known_by_their_tables(job: Job, tmp_path: Path) -> None:
    scp = list_features(tmp_path, 1)
    command = Job(job.module, (f"{scp},speech,kaldi_ark", "x"), job.log)
    with_note = command.fingerprint()
    for content in (None, "[1]", "{", '{"digest": "x"}', "\xff"):
        (tmp_path / "feats.0.json").unlink()
        if content is not None:
            (tmp_path / "feats.0.json").write_text(content, encoding="latin-1")
        assert command.fingerprint() == with_note.split()[0]
        (tmp_path / "feats.0.json").touch()
