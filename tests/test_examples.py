"""The examples run: ESPnet-EZ on the installed ESPnet, ESPnet3 on the later one that `make test` unpacks."""

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import espnet_gmot

ROOT = Path(espnet_gmot.__file__).parent
EXAMPLES = ROOT.parent / "examples"


@pytest.mark.espnet
def test_espnet_ez_trains_and_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pyworld", "pypinyin", "asteroid_filterbanks", "six"):
        pytest.importorskip(module, reason=f"ESPnet-EZ imports {module}, which isn't installed")
    from espnet_gmot.hosts import export

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["espnet_ez.py"])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(EXAMPLES / "espnet_ez.py"))["main"]("exp")
    reporter = torch.load("exp/checkpoint.pth", weights_only=False)["reporter"]["stats"]
    assert set(reporter) == {1, 2}
    assert 0 < reporter[2]["train"]["loss_gmot"] < 4 and reporter[2]["train"]["loss_ctc"] < 20
    exported = export.export(Path("exp"), Path("stock"))  # what ESPnet-EZ leaves is an experiment like any other
    assert exported.original_file.name == "valid.cer_ctc.ave.pth"


@pytest.fixture(scope="module")
def later() -> Path:
    """Folder to put in front of sys.path: the later ESPnet, unpacked, and what it needs."""
    folder = Path(sys.prefix) / "espnet_later"
    if not (folder / "espnet3").is_dir():
        pytest.skip(f"{folder}: no later ESPnet there; `make test` fetches it")
    return folder


def espnet_names(source: str) -> Iterator[tuple[str, str | None]]:
    """What a source takes from ESPnet: (module, name in it or None), in imports and in texts like "espnet2.bin.x"."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and re.match(r"espnet[23]?(\.|$)", node.module or ""):
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, None) for a in node.names if re.match(r"espnet[23]?(\.|$)", a.name))
        elif isinstance(node, ast.Constant) and re.fullmatch(r"espnet[23](\.[a-z]\w*)+", str(node.value)):
            yield str(node.value), None


def defined(root: Path, module: str, name: str | None) -> bool:
    """Whether a module's file is there and binds the name; nothing is imported."""
    place = root.joinpath(*module.split("."))
    file = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
    if name is None or file is None:
        return file is not None or (place.is_dir() and name is None)
    if defined(root, f"{module}.{name}", None):
        return True
    bound: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.Assign):
            bound |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return name in bound


def test_the_later_espnet_has_all_that_we_import(later: Path) -> None:
    taken = {(path, *name) for path in ROOT.rglob("*.py") for name in espnet_names(path.read_text(encoding="utf8"))}
    assert len(taken) > 10
    assert [name for name in sorted(taken, key=str) if not defined(later, *name[1:])] == []


def test_a_name_that_espnet_lacks_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "espnet2").mkdir()
    (tmp_path / "espnet2/here.py").write_text("def known(): ...")
    source = "from espnet2.here import known, gone\nimport espnet2.away\nx = 'espnet2.here'\n"
    found = {name: defined(tmp_path, *name) for name in espnet_names(source)}
    assert found == {
        ("espnet2.here", "known"): True,
        ("espnet2.here", "gone"): False,
        ("espnet2.away", None): False,
        ("espnet2.here", None): True,
    }


@pytest.mark.espnet
def test_espnet3_trains_and_exports(later: Path, tmp_path: Path) -> None:
    for name in ("tones.py", "tones_dataset.py", "espnet3_asr.py", "espnet3_asr.yaml"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text(encoding="utf8"), encoding="utf8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [later, ROOT.parent]))}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    said = run("espnet3_asr.py", "--stages", "collect_stats", "train", "--training_config", "espnet3_asr.yaml")
    assert re.search(r"epoch_summary:2epoch:valid: .*loss_gmot=\d", said)
    said = run("-m", "espnet_gmot", "export", "exp/tones_gmot", "--out", "stock")
    assert "as the original does" in said and "none missing, none unexpected" in said
    assert yaml.safe_load((tmp_path / "stock/config.yaml").read_text())["task"].startswith("espnet3.")
