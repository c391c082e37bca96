"""doctor: every missing piece is named with the command that mends it, and needed ones make it fail."""

import importlib.metadata
import json
from collections import namedtuple
from pathlib import Path

import pytest

from espnet_gmot import doctor, launcher
from espnet_gmot.doctor import Finding


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ESPNET_ROOT", "AISHELL"):
        monkeypatch.delenv(name, raising=False)


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    version = importlib.metadata.version

    def absent(name: str) -> str:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)


def test_here_all_that_is_needed_is_here(capsys: pytest.CaptureFixture) -> None:
    assert launcher.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert said.count("\nok ") >= 15 and "All that is needed is here" in said
    assert "wait for espnet2.tasks.asr" in said


@pytest.mark.parametrize(("name", "status", "code"), [("kaldiio", "missing", 1), ("POT", "absent", 0)])
def test_a_missing_package_has_its_command(
    name: str, status: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    without(monkeypatch, name)
    assert doctor.main([]) == code
    lines = capsys.readouterr().out.splitlines()
    row = next(i for i, line in enumerate(lines) if line.split()[1:2] == [name])
    assert lines[row].startswith(status) and lines[row + 1].strip() == f"→ pip install {name}"


def test_it_runs_where_torch_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.sys.modules, "torch", None)
    assert doctor.gpu().status == "missing" and "pip install" in doctor.gpu().mend


def test_scoring_needs_one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda *_, **__: None)
    assert doctor.scoring(None).detail.startswith("jiwer")
    without(monkeypatch, "jiwer")
    assert doctor.scoring(None) == Finding("scoring", "neither sclite nor jiwer", "missing", "pip install jiwer")


def test_a_checkout_has_asr_sh(tmp_path: Path) -> None:
    assert doctor.checkout(None).status == "absent"  # the recipe command works without
    assert doctor.checkout(tmp_path).status == "missing"
    (tmp_path / "egs2/TEMPLATE/asr1").mkdir(parents=True)
    (tmp_path / "egs2/TEMPLATE/asr1/asr.sh").touch()
    assert doctor.checkout(tmp_path) == Finding("checkout", str(tmp_path))


def test_a_teacher_is_a_folder_an_archive_or_a_cached_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "lacks weights, tokenizer" in doctor.teacher(str(tmp_path)).detail
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "vocab.txt").touch()
    assert doctor.teacher(str(tmp_path)).status == "ok"
    (tmp_path / "teacher.json").write_text(json.dumps({"width": 4}))
    assert "dump-teacher" in doctor.teacher(str(tmp_path)).mend
    (tmp_path / "teacher.scp").write_text("a x.ark:2\n")
    assert doctor.teacher(str(tmp_path)).status == "ok"
    assert doctor.teacher("nobody/no-such-model").mend == "hf download nobody/no-such-model"
    assert doctor.teacher(str(tmp_path / "no" / "such" / "folder")).status == "missing"


def test_full_runs_the_teacher(shared_plm: Path) -> None:
    assert doctor.teacher_runs(str(shared_plm)).detail.endswith("6 rows for six characters, teacher_width: 384")


@pytest.mark.espnet
def test_full_asks_espnet_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.hooks_full().status == "ok"
    import espnet2.tasks.asr as task

    from espnet_gmot.hosts import register

    monkeypatch.delitem(task.model_choices.classes, "gmot")
    monkeypatch.setattr(register, "register", lambda: None)
    assert doctor.hooks_full().status == "missing"


def test_aishell_is_a_tree_or_an_archive(tmp_path: Path) -> None:
    assert doctor.aishell(None).status == "absent" and doctor.aishell(tmp_path).status == "missing"
    (tmp_path / "data_aishell.tgz").touch()
    assert "unpacks it" in doctor.aishell(tmp_path).detail
    (tmp_path / "data_aishell/wav").mkdir(parents=True)
    (tmp_path / "data_aishell/transcript").mkdir()
    (tmp_path / "data_aishell/transcript/aishell_transcript_v0.8.txt").touch()
    assert doctor.aishell(tmp_path) == doctor.aishell(tmp_path / "data_aishell")
    assert doctor.aishell(tmp_path).detail == str(tmp_path / "data_aishell")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(50 * 2**30))
    assert [doctor.disk(tmp_path, size).status for size in (20, 100)] == ["ok", "absent"]
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(2**30))
    assert doctor.main(["--workdir", str(tmp_path)]) == 1
    assert "1 missing" in capsys.readouterr().out
    assert launcher.main(["doctor", "--workdir", str(tmp_path / "none")]) == 1


def test_a_module_is_found_without_importing_it() -> None:
    assert doctor._module_exists("espnet_gmot.teacher.dump")
    assert not doctor._module_exists("espnet_gmot.teacher.nothing") and not doctor._module_exists("nothing.at.all")
