"""What pip gets: a whole sdist, a wheel made of it, and what works where only the wheel, torch and numpy are."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from espnet_gmot import launcher
from espnet_gmot.version import __version__

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("build")
pytest.importorskip("twine")


def python(*words: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run this Python without the clone on its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=cwd, env={**environment, "PATH": path, **more}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was made of it."""
    folder = tmp_path_factory.mktemp("package")
    listed = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("needs a git clone")
    for name in filter(None, files.stdout.split("\0")):
        target = folder / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    done = python("-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), cwd=folder / "clone")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "dist"


@pytest.fixture(scope="module")
def site(dist: Path) -> Path:
    """A folder that pip installed the wheel into, and nothing else."""
    folder = dist.parent / "site"
    words = [
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder),
        *map(str, dist.glob("*.whl")),
    ]
    assert python(*words, cwd=dist).returncode == 0
    return folder


def test_the_sdist_is_whole_and_the_index_takes_both(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    assert f"espnet_gmot-{__version__}" in sdist.name and f"espnet_gmot-{__version__}" in wheel.name
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {str(path.relative_to(ROOT)) for part in ("tests", "conf") for path in (ROOT / part).rglob("*.*")}
    wanted = {name for name in wanted if "__pycache__" not in name and "/." not in name}
    assert not wanted - packed and {"LICENSE", "egs2/aishell_gmot/asr1/run.sh", "Makefile"} <= packed
    done = python("-m", "twine", "check", "--strict", str(sdist), str(wheel), cwd=dist)
    assert done.returncode == 0, done.stdout


def test_the_wheel_carries_what_its_users_need(site: Path) -> None:
    assert (site / "espnet_gmot/py.typed").is_file() and (site / "bin/espnet_gmot").is_file()
    (info,) = site.glob("espnet_gmot-*.dist-info")
    assert "# espnet_gmot" in (info / "METADATA").read_text(encoding="utf8")
    assert list(info.rglob("LICENSE")) and not (site / "tests").exists()
    laid = {path.name for path in (site / "espnet_gmot/recipe/template/conf").iterdir()}
    assert laid == {path.name for path in (ROOT / "conf").iterdir()}


BARE = """
import contextlib, io, json, sys
names = "numba llvmlite ot scipy transformers kaldiio yaml espnet espnet2 soundfile soxr tqdm jiwer sentencepiece"
sys.modules.update(dict.fromkeys(f"{names} espeakng_loader matplotlib".split()))
from espnet_gmot import launcher
said = {}
for words in (["--help"], *([name, "--help"] for name in launcher.COMMANDS)):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = launcher.main(words)
        except SystemExit as end:
            status = end.code
    said[words[0]] = [status or 0, out.getvalue(), err.getvalue()]
print(json.dumps(said))
"""


def test_every_command_helps_or_names_its_extra(site: Path, tmp_path: Path) -> None:
    """Where torch and numpy are all that is installed beside the wheel."""
    said = json.loads(python("-c", BARE, cwd=tmp_path, PYTHONPATH=str(site)).stdout)
    for name in launcher.COMMANDS:
        assert f"  {name}" in said["--help"][1]
        status, out, err = said[name]
        if status:
            assert f"pip install 'espnet_gmot[{launcher.EXTRAS.get(name, 'recipe')}]'" in err and err.count("\n") == 1
        else:
            assert "usage: python3 -m espnet_gmot" in out, err


def test_a_recipe_without_a_clone(site: Path, tmp_path: Path) -> None:
    """It is laid down once, and its run.sh finds the installed package."""
    done = python("-m", "espnet_gmot", "recipe", "--init", "mine/asr1", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "mine/asr1"
    assert {"run.sh", "path.sh", "cmd.sh", "local", "conf"} <= {path.name for path in folder.iterdir()}
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(site), "PATH": path, "VIRTUAL_ENV": sys.prefix}
    environment.pop("ESPNET_ROOT", None)
    probe = [". ./path.sh; echo \"[${GMOT_ROOT}]\"; python3 -c 'import espnet_gmot as e; print(e.__file__)'"]
    found = subprocess.run(["bash", "-c", *probe], cwd=folder, env=environment, capture_output=True, text=True)
    assert found.stdout.splitlines() == ["[]", f"{site}/espnet_gmot/__init__.py"]
    done = subprocess.run(["./run.sh", "--stage", "15"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "finished in" in done.stdout, done.stderr
    again = python("-m", "espnet_gmot", "recipe", "--init", "mine/asr1", cwd=tmp_path, PYTHONPATH=str(site))
    assert again.returncode == 1 and "already: give another folder" in again.stderr
