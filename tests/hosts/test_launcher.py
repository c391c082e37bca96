"""The launcher: commands, modules and scripts, each with the plugin registered, in spawned workers too."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from espnet_gmot import launcher

WORK = """
import sys
def work(queue):
    # what waits for ESPnet's task to be imported; test_registering… covers what it does then
    queue.put(any("espnet_gmot" in type(finder).__module__ for finder in sys.meta_path))
"""
SPAWN = """
import multiprocessing, sys
from spawned import work
if __name__ == "__main__":
    assert sys.argv[1:] == ["--flag"], sys.argv
    queue = multiprocessing.get_context("spawn").Queue()
    child = multiprocessing.get_context("spawn").Process(target=work, args=(queue,))
    child.start()
    print("registered in the child:", queue.get(timeout=120))
    child.join()
"""


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    root = str(Path(launcher.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{cwd}"}
    command = [sys.executable, "-m", "espnet_gmot", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("words", [["-m", "spawning"], ["spawning.py"]])
def test_whatever_spawns_finds_the_plugin_in_its_workers(tmp_path: Path, words: list[str]) -> None:
    # a script's workers may run what the script itself defines; a module that runs as __main__ can't offer that
    body = WORK + SPAWN.replace("from spawned import work", "") if words[0] != "-m" else SPAWN
    (tmp_path / "spawning.py").write_text(body)
    (tmp_path / "spawned.py").write_text(WORK)
    done = run(*words, "--flag", cwd=tmp_path)
    assert done.stdout.strip().endswith("registered in the child: True"), done.stderr


def test_a_script_gets_its_arguments_and_its_folder(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("word = 'found'")
    (tmp_path / "script.py").write_text("import sys, beside; print(beside.word, sys.argv[1:], __name__)")
    done = run("script.py", "-x", "1", cwd=tmp_path)
    assert done.stdout.strip() == "found ['-x', '1'] __main__", done.stderr


def test_starting_up_imports_no_espnet(tmp_path: Path) -> None:
    (tmp_path / "light.py").write_text("import sys; print(sorted(m for m in ('espnet2', 'torch') if m in sys.modules))")
    assert run("light.py", cwd=tmp_path).stdout.strip() == "[]"


def test_a_locale_without_the_signs_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """compare's help has a multiplication sign, which ASCII lacks; characters are in no 8-bit locale."""
    (tmp_path / "say.py").write_text("print('\\u5929')")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for words in (["compare", "--help"], ["say.py"]):
        done = run(*words, cwd=tmp_path)
        assert done.returncode == 0 and "\\" in done.stdout, done.stderr


@pytest.mark.espnet
def test_registering_twice_changes_nothing(task: ModuleType) -> None:
    from espnet_gmot.hosts.register import register

    before, finders = dict(task.model_choices.classes), len(sys.meta_path)
    register()
    assert task.model_choices.classes == before and len(sys.meta_path) == finders


@pytest.mark.espnet
def test_a_host_of_the_wrong_class_is_refused(task: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from espnet_gmot.hosts import model, register

    monkeypatch.setattr(model, "ESPnetGMOTASRModel", dict)
    with pytest.raises(TypeError, match="ESPnet's --model needs one"):
        register.add_choices(task)


def test_unknown_commands_name_the_closest(capsys: pytest.CaptureFixture) -> None:
    assert launcher.main(["dump-techer"]) == 2
    assert "did you mean 'dump-teacher'" in capsys.readouterr().err
    assert launcher.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in launcher.COMMANDS)
    assert launcher.main(["-m"]) == 1
    assert "-m needs a module" in capsys.readouterr().err


def test_an_absent_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(launcher.COMMANDS, "prepare-data", ("espnet_gmot.gone", ""))
    with pytest.raises(ModuleNotFoundError):  # a defect of ours stays one
        launcher.main(["prepare-data"])
    monkeypatch.setitem(launcher.COMMANDS, "prepare-data", ("tqdm.absent", ""))
    assert launcher.main(["prepare-data"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and " has no tqdm" in said and "espnet_gmot doctor" in said


def test_a_script_that_starts_commands_is_not_run_by_their_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python3 -m espnet_gmot tune.py` may call run.sh, whose programs on a GPU are spawned."""
    monkeypatch.setenv(launcher._SCRIPT, "/x/tune.py")
    assert launcher.main(["--help"]) == 0
    assert launcher._SCRIPT not in os.environ
