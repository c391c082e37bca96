"""Files whole or absent, and folders for one run alone."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.files import alone, beside, disk_full, replacing, require_free, staging, sweep, writing
from tests.recipe.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from espnet_gmot.files import alone, beside
with alone(Path(sys.argv[1])):
    beside(Path(sys.argv[1], "half")).write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a folder."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        yield other
    finally:
        other.kill()
        other.wait()


def test_a_folder_has_one_run_and_death_lets_go(tmp_path: Path) -> None:
    with held(tmp_path) as other:
        with (
            pytest.raises(UserError, match=rf"another run writes here \(process {other.pid} on ") as error,
            alone(tmp_path, seconds=0.3),
        ):
            pass
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match="another run writes here"):
            require_free(tmp_path, seconds=0.3)
        other.send_signal(signal.SIGKILL)
        other.wait()
        start = time.monotonic()
        with alone(tmp_path):
            assert str(os.getpid()) in (tmp_path / ".lock").read_text()
        assert time.monotonic() - start < 2
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]  # what it left half-written is gone
    require_free(tmp_path)
    require_free(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_what_another_is_writing_stays(tmp_path: Path) -> None:
    ours, elsewhere = beside(tmp_path / "a"), tmp_path / f".b.another-host-{os.getpid()}.tmp"
    for path in (ours, elsewhere):
        path.write_text("")
    with alone(tmp_path):
        assert ours.exists() and elsewhere.exists()


def test_what_the_dead_left_goes_before_their_parent_notices(tmp_path: Path) -> None:
    """A killed run's children belong to init, which may take its time to fetch them."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # dead, not fetched
    left = tmp_path / f".a.{os.uname().nodename}-{child}.tmp"
    left.write_text("")
    folder = left.with_name(left.name.replace(".a.", ".pack."))
    (folder / "exp").mkdir(parents=True)
    sweep(tmp_path)
    assert not left.exists() and not folder.exists()
    os.waitpid(child, 0)


def test_a_staging_folder_goes_with_its_block(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staging(tmp_path / "pack") as folder:
        (folder / "x").touch()
        sweep(tmp_path)
        assert (folder / "x").exists()
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_an_error_inside_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="elsewhere"), alone(tmp_path):
        raise PermissionError(13, "elsewhere")


def test_a_full_disk_is_told_from_other_errors(tmp_path: Path) -> None:
    assert disk_full(OSError(5, "Input/output error")) is None
    assert "/a/b: no space left" in str(disk_full(OSError(28, "No space left on device", "/a/b")))
    wrapped = RuntimeError("unexpected pos 5 vs 3")
    wrapped.__context__ = OSError(28, "No space left on device")
    assert "no space left" in str(disk_full(wrapped))
    with replacing(tmp_path / "x", durable=True) as handle:
        handle.write("whole")
    assert (tmp_path / "x").read_text() == "whole"


def test_only_what_cannot_be_written_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what can't be read, nor a program that can't be run; root's permissions allow all, so they are told here."""
    file, allowed = tmp_path / "x", {os.R_OK, os.W_OK}
    monkeypatch.setattr(os, "access", lambda path, mode: mode in allowed)

    def refuse(path: Path) -> None:
        with writing():
            raise PermissionError(13, "Permission denied", str(path))

    with pytest.raises(UserError, match="x: cannot be written"):
        refuse(file)  # it is not there yet
    file.touch()
    with pytest.raises(PermissionError):
        refuse(file)
    allowed.remove(os.W_OK)
    with pytest.raises(UserError, match="x: cannot be written"):
        refuse(file)
    allowed.clear()
    with pytest.raises(UserError, match=r"x: cannot be read .*; mend its permissions"):
        refuse(file)
    with pytest.raises(UserError, match="x: cannot be written"), writing(file):
        raise PermissionError(13, "Permission denied", str(file))
