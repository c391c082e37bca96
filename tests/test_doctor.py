"""doctor: every missing piece is named with the command that mends it, and needed ones make it fail."""

import importlib.metadata
import shlex
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from espnet_gmot import doctor, launcher
from espnet_gmot.doctor import material, software
from espnet_gmot.doctor.finding import OPTIONAL, Finding


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
    assert lines[row].startswith(status) and lines[row + 1].strip() == f"→ python3 -m pip install {name}"


def test_it_runs_where_torch_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(software.sys.modules, "torch", None)
    assert software.gpu().status == "missing" and "env" in software.gpu().mend


def test_a_whole_environment_is_made_or_activated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "HOME", tmp_path)
    monkeypatch.setattr(software.sys, "version_info", (3, 11))
    without(monkeypatch, "espnet")
    assert software.package("espnet").mend == f"python3 -m pip install {software.ESPNET}"  # no clone: what pip can do
    (tmp_path / "Makefile").touch()
    lines: list[str] = []
    assert doctor.report([software.package("espnet"), software.hooks()] * 2, lines.append) == 1
    assert lines[-1] == f"\n2 missing, start with: make -C {tmp_path} -B env && . {tmp_path}/.venv/bin/activate"
    activate = f". {tmp_path}/.venv/bin/activate"
    assert software.package("espnet").mend == f"make -C {tmp_path} -B env && {activate}"
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.done").touch()
    assert software.package("espnet").mend == activate
    monkeypatch.setattr(software.sys, "prefix", str(tmp_path / ".venv"))  # it's the active one, and broken
    assert software.package("espnet").mend.startswith("make ")


def test_what_espnet_imports_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert software.espnet_needs().status == "ok"
    without(monkeypatch, "typeguard", "inflect")
    found = software.espnet_needs()
    assert found.status == "missing" and found.mend == "python3 -m pip install typeguard 'inflect<6'"


def test_a_gpu_wants_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="Card", total_memory=2**33)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: card)
    monkeypatch.setattr(software, "version", lambda name: "3.9.0")
    found = software.gpu()
    assert found.status == "ok" and found.detail.startswith("2 × Card, 8 GiB") and "Triton 3.9.0" in found.detail
    monkeypatch.setattr(software, "version", lambda name: "")
    monkeypatch.setattr(software, "requires", lambda name: ["numpy", "triton==3.7.1; platform_system == 'Linux'"])
    found = software.gpu()
    assert found.status == OPTIONAL and "no Triton" in found.detail and found.mend.endswith("pip install triton==3.7.1")


def test_scoring_needs_one_of_two_and_a_checkout_sclite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software.shutil, "which", lambda *_, **__: None)
    assert software.scoring(None).detail.startswith("jiwer")
    assert software.scoring(tmp_path).status == "missing" and "apt-get install sctk" in software.scoring(tmp_path).mend
    without(monkeypatch, "jiwer")
    mend = "python3 -m pip install jiwer"
    assert software.scoring(None) == Finding("scoring", "neither sclite nor jiwer", "missing", mend)


def test_what_a_checkouts_scripts_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "egs2/TEMPLATE/asr1").mkdir(parents=True)
    (tmp_path / "egs2/TEMPLATE/asr1/asr.sh").touch()
    monkeypatch.setattr(software.shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    assert software.asr_sh().status == "ok" and doctor.main(["--espnet_root", str(tmp_path)]) == 0
    without(monkeypatch, "resampy")
    assert software.asr_sh().mend == "python3 -m pip install resampy"
    assert doctor.main(["--espnet_root", str(tmp_path)]) == 1 and doctor.main([]) == 0
    monkeypatch.undo()
    monkeypatch.setattr(software.shutil, "which", lambda *_, **__: None)
    assert software.asr_sh().status == "absent" and software.asr_sh().mend == "sudo apt-get install sox"


def test_a_checkout_has_asr_sh(tmp_path: Path) -> None:
    assert material.checkout(None).status == "absent"  # the recipe command works without
    assert material.checkout(tmp_path).status == "missing"
    (tmp_path / "egs2/TEMPLATE/asr1").mkdir(parents=True)
    (tmp_path / "egs2/TEMPLATE/asr1/asr.sh").touch()
    assert material.checkout(tmp_path) == Finding("checkout", str(tmp_path))


def test_a_recipes_folder_knows_its_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = tmp_path / "espnet/egs2/TEMPLATE/asr1"
    template.mkdir(parents=True)
    (template / "asr.sh").touch()
    for folder in (tmp_path / "espnet/egs2/mine/asr1", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        (folder / "asr.sh").symlink_to(template / "asr.sh")
        monkeypatch.delenv("ESPNET_ROOT", raising=False)
        assert doctor.parser().parse_args([]).espnet_root == tmp_path / "espnet"
        monkeypatch.setenv("ESPNET_ROOT", "other")
        assert doctor.parser().parse_args([]).espnet_root == Path("other")
    (folder / "asr.sh").unlink()
    assert material.surrounding_checkout() is None


def test_a_teacher_is_a_folder_an_archive_or_a_cached_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert (
        "lacks weights (model.safetensors or pytorch_model.bin) and a vocabulary"
        in material.teacher(str(tmp_path)).detail
    )
    (tmp_path / "vocab.txt").touch()
    (tmp_path / "model.safetensors").touch()
    found = material.teacher(str(tmp_path))
    assert found.status == "missing" and "model.safetensors is damaged or cut short (0 bytes)" in found.detail
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert material.teacher(str(tmp_path)).status == "ok"
    (tmp_path / "vocab.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    found = material.teacher(str(tmp_path))
    assert "vocab.txt is an LFS pointer" in found.detail and found.mend == f"git -C {tmp_path} lfs pull"
    (tmp_path / "adapter_config.json").touch()
    found = material.teacher(str(tmp_path))
    assert "an adapter (LoRA" in found.detail and found.mend.startswith("merge it first")
    assert material.teacher("nobody/no-such-model").mend == "hf download nobody/no-such-model"
    for folder in (tmp_path / "none", tmp_path / "no" / "such" / "folder"):
        found = material.teacher(str(folder))
        assert found.detail.endswith("no such folder") and f"--local-dir {folder} " in found.mend


def test_a_damaged_dump_is_mended_by_the_command_that_made_it(shared_plm: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a 今天天气\nb 很好\n", encoding="utf8")
    out = tmp_path / "out"
    words = ["--model", str(shared_plm), "--text", str(tmp_path / "text"), "--out", str(out), "--layer", "1", "2"]
    words += ["--normalise", "centre", "--precision", "int8"]
    (tmp_path / "train").write_text("c 我们去看书\n", encoding="utf8")
    train = [*words, "--text", str(tmp_path / "train"), "--out", str(tmp_path / "training")]  # the later option counts
    assert launcher.main(["dump-teacher", *train]) == 0
    words += ["--stats", str(tmp_path / "training")]
    assert launcher.main(["dump-teacher", *words]) == 0 and material.teacher(str(out)).status == "ok"
    before = (out / "teacher.0.ark").read_bytes()
    for name in ("teacher.scp", "teacher.0.ark"):
        (out / name).unlink()
        found = material.teacher(str(out))
        assert found.status == "missing" and f"{name} is missing" in found.detail
        assert launcher.main(shlex.split(found.mend)[3:]) == 0
        assert material.teacher(str(out)).status == "ok" and (out / "teacher.0.ark").read_bytes() == before


def test_full_runs_the_teacher(shared_plm: Path) -> None:
    assert material.teacher_runs(str(shared_plm)).detail.endswith("6 rows for six characters, teacher_width: 384")


@pytest.mark.espnet
def test_full_asks_espnet_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert software.hooks_full().status == "ok"
    import espnet2.tasks.asr as task

    from espnet_gmot.hosts import register

    monkeypatch.delitem(task.model_choices.classes, "gmot")
    monkeypatch.setattr(register, "register", lambda: None)
    assert software.hooks_full().status == "missing"


def test_aishell_is_a_tree_or_an_archive(tmp_path: Path) -> None:
    assert material.aishell(None).status == "absent" and material.aishell(tmp_path).status == "missing"
    (tmp_path / "data_aishell.tgz").touch()
    assert "unpacks it" in material.aishell(tmp_path).detail
    (tmp_path / "data_aishell/wav").mkdir(parents=True)
    (tmp_path / "data_aishell/transcript").mkdir()
    (tmp_path / "data_aishell/transcript/aishell_transcript_v0.8.txt").touch()
    assert material.aishell(tmp_path) == material.aishell(tmp_path / "data_aishell")
    assert material.aishell(tmp_path).detail == str(tmp_path / "data_aishell")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(material.shutil, "disk_usage", lambda _: usage(50 * 2**30))
    assert [material.disk(tmp_path, size).status for size in (20, 100)] == ["ok", "absent"]
    monkeypatch.setattr(material.shutil, "disk_usage", lambda _: usage(2**30))
    assert doctor.main(["--workdir", str(tmp_path)]) == 1
    assert "1 missing" in capsys.readouterr().out
    assert launcher.main(["doctor", "--workdir", str(tmp_path / "none")]) == 1


def test_a_module_is_found_without_importing_it() -> None:
    assert software._module_exists("espnet_gmot.teacher.dump")
    assert not software._module_exists("espnet_gmot.teacher.nothing") and not software._module_exists("nothing.at.all")
