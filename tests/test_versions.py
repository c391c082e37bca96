"""The versions that the package works with: what it says of them, and that the code keeps to it."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_gmot import launcher, versions
from espnet_gmot.doctor import finding, software
from tests import matrix

ROOT = Path(__file__).resolve().parents[1]


def test_the_code_keeps_to_the_oldest_python() -> None:
    """No name of a standard library that Python 3.10 lacks; its syntax is ruff's to check (target-version)."""
    command = [sys.executable, "-c", "import vermin; vermin.main()", "-t=3.10-", "--violations", "--no-tips", "-q"]
    done = subprocess.run([*command, "espnet_gmot", "tests", "examples"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_lower_bounds_are_those_that_pip_gets() -> None:
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    extras = declared["options.extras_require"]
    lines = [declared["options"]["install_requires"], *extras.values()]
    bounds = dict(word.split(">=") for text in lines for word in text.split() if ">=" in word)
    bounds["python"] = declared["options"]["python_requires"].removeprefix(">=")
    for name, known in versions.SUPPORTED.items():
        assert bounds.get(name, known.lowest) == known.lowest, name


def test_what_was_tried_is_what_the_matrix_ran() -> None:
    """Tried are the versions of the rows that ran nothing but passing tests, and numba where transport ran."""
    tried: dict[str, set[tuple[int, ...]]] = {name: set() for name in versions.SUPPORTED}
    for row in matrix.read_results().values():
        results = {name: check["result"] for name, check in row["checks"].items()}
        if not results or any(word in text for text in results.values() for word in ("failed", "error", "broken")):
            continue
        for package, version in {**row["versions"], "python": ".".join(row["python"].split(".")[:2])}.items():
            if package in tried and (package != "numba" or "transport" in results):
                tried[package].add(versions.key(version))
    for package, known in versions.SUPPORTED.items():
        assert sorted(map(versions.key, known.tried)) == sorted(tried[package]), package


def test_the_page_shows_the_results_of_the_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = matrix.PAGE.read_text(encoding="utf8")
    monkeypatch.setattr(matrix, "PAGE", tmp_path / "page.md")
    matrix.PAGE.write_text(page, encoding="utf8")
    matrix.write_page(matrix.read_results())
    assert matrix.PAGE.read_text(encoding="utf8") == page


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("torch", "2.0.1"),
        ("torch", "1.13.1+cu117"),
        ("transformers", "4.29.2"),
        ("numba", "0.56.4"),
        ("python", "3.9.18"),
    ],
)
def test_an_unsupported_version_is_refused_at_start(
    name: str, version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    found = {**versions.installed(), name: version}
    monkeypatch.setattr(versions, "installed", lambda: found)
    assert launcher.main(["-m", "espnet2.bin.asr_train"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{name} {version}: known not to work: needs" in said
    assert versions.SUPPORTED[name].lowest in said


def test_a_version_is_tried_or_likely() -> None:
    assert versions.verdict("torch", "2.13.0+cpu") == "tried"
    assert versions.verdict("python", "3.11.99") == "tried"
    assert versions.verdict("torch", "99.0").startswith("likely to work (tried: ")
    assert not versions.refused("numba", "0.57.0rc1") and versions.refused("kaldiio", "2.18.0")


def test_an_old_espnet_says_what_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["numpy<1.24", "librosa (==0.9.2)", "sentencepiece ==0.1.97", "pytorch-wpe", "setuptools<74"]
    there = {"espnet": "202308", "numpy": "1.24.0", "librosa": "0.9.2", "sentencepiece": "0.1.97"}
    monkeypatch.setattr(software, "requires", lambda _: asked)
    monkeypatch.setattr(software, "version", there.get)
    found = software.espnet_asks()
    assert found.detail == "numpy 1.24.0, espnet 202308 asks for <1.24"
    assert found.mend == "python3 -m pip install 'numpy<1.24'"
    there["numpy"] = "1.23.5"
    assert software.espnet_asks().status == "ok"
    assert "pytorch_wpe" in software.espnet_needs().mend
    assert finding.requires("no-such-package") == []


def test_a_missing_torchaudio_is_installed_by_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    for torch, audio in (("2.1.2+cu121", "2.1.2"), ("2.13.0+cpu", "2.11.0")):
        monkeypatch.setattr(software, "version", {"torch": torch}.get)
        assert software.package("torchaudio").mend == f"python3 -m pip install --no-deps torchaudio=={audio}"
