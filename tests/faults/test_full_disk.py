"""A disk that is full: one line, nothing half-written, and a rerun that goes on once there is room."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import kaldiio
import pytest
import torch

from espnet_gmot import launcher
from espnet_gmot.errors import UserError
from espnet_gmot.hosts.checkpoints import BACKUP, CHECKPOINT, load, save
from espnet_gmot.recipe.results_md import write_results
from espnet_gmot.teacher import dump
from tests.teacher.conftest import TEXT, save_bert

pytestmark = pytest.mark.espnet


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that gives a disk of so many KiB, or as many to the one that is there."""
    place = tmp_path / "disk"
    place.mkdir()

    def size(kilobytes: int) -> Path:
        again = ["-o", "remount"] if place.is_mount() else []
        command = ["mount", "-t", "tmpfs", *again, "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a disk of its own needs root: {done.stderr.strip()}")
        return place

    yield size
    subprocess.run(["umount", str(place)], check=False, capture_output=True)


def test_a_dump_goes_on_once_there_is_room(
    disk: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "_SMALLEST_SHARD", 2)
    model = save_bert(tmp_path / "plm", TEXT)
    (tmp_path / "text").write_text("".join(f"utt{index} {text}\n" for index, text in enumerate(TEXT)))
    out = disk(8) / "out"
    words = ["dump-teacher", "--model", str(model), "--text", str(tmp_path / "text"), "--out", str(out)]
    assert launcher.main(words) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"espnet_gmot dump-teacher: error: {out}") and "no space left on the disk" in line
    assert not (out / "teacher.scp").exists() and not list(out.glob(".*.tmp"))
    disk(1000)
    assert launcher.main(words) == 0
    assert len(kaldiio.load_scp(str(out / "teacher.scp"))) == len(TEXT)


def test_a_checkpoint_that_has_no_room_leaves_the_last_one(disk: Callable) -> None:
    folder = disk(300)
    states = {"model": {"x": torch.zeros(30_000)}}
    for number in (1, 2):
        save({**states, "number": number}, folder / CHECKPOINT)
    with pytest.raises(UserError, match=rf"{CHECKPOINT}: no space left on the disk .* run the same command") as error:
        save({**states, "number": 3}, folder / CHECKPOINT)
    assert "\n" not in str(error.value) and not list(folder.glob(".*.tmp"))
    assert load(folder / CHECKPOINT)["number"] == 2 and load(folder / BACKUP)["number"] == 1
    disk(1000)
    save({**states, "number": 3}, folder / CHECKPOINT)
    assert load(folder / CHECKPOINT)["number"] == 3


def test_results_that_have_no_room_are_said(disk: Callable) -> None:
    folder = disk(16)
    (folder / "exp").mkdir()
    (folder / "filler").write_bytes(bytes(4 * 1024))
    with pytest.raises(OSError, match="No space left"), (folder / "more").open("wb") as handle:
        handle.write(bytes(1 << 20))
    with pytest.raises(UserError, match=r"RESULTS.md: no space left on the disk"):
        write_results(folder / "exp")
    (folder / "more").unlink()
    write_results(folder / "exp")
    assert (folder / "exp/RESULTS.md").read_text()
