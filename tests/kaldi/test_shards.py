"""Shards in several processes: whatever happens to one of these, the dump comes to an end and says why."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.shards import Dump, Shard

SHARDS, SECONDS = 4, 120


@pytest.fixture(autouse=True)
def _time_bound() -> Iterator[None]:
    """A dump that goes on for ever fails."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not over in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def write(shard: Shard, advance: Callable[[int], Any]) -> None:
    """A worker: numbers into matrices."""
    shard.write(((str(item), np.full((item, 2), item, np.float32)) for item in shard.items), {})
    advance(len(shard.items))


def write_or_fail(shard: Shard, advance: Callable[[int], Any]) -> None:
    if 3 in shard.items:
        raise UserError("item 3: bad")
    write(shard, advance)


def write_or_die(shard: Shard, advance: Callable[[int], Any]) -> None:
    if 3 in shard.items:
        os.kill(os.getpid(), signal.SIGKILL)
    write(shard, advance)


def write_place(shard: Shard, advance: Callable[[int], Any]) -> None:
    """The process and the GPU that it sees, told once the other process has begun, too."""
    folder = shard.path.parent
    (folder / f"{os.getpid()}.place").write_text(str(os.environ.get("CUDA_VISIBLE_DEVICES")))
    while len(list(folder.glob("*.place"))) < 2:  # as long as the alarm lets it
        time.sleep(0.02)
    write(shard, advance)


def writer() -> Callable:
    return write


def placing() -> Callable:
    return write_place


def failing() -> Callable:
    return write_or_fail


def dying() -> Callable:
    return write_or_die


def without_memory() -> Callable:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")


def without_folder() -> Callable:
    raise UserError("teacher 'x': there is no such folder")


def dump(folder: Path, load: Callable[[], Callable], nj: int = 2, device: str = "cpu") -> list[Shard]:
    there = Dump("dump-numbers", folder, "numbers", most=SHARDS, smallest=1, device=device)
    items = list(range(1, SHARDS + 1))
    shards = there.plan(items, items, {"kind": "numbers"}, width=2)
    todo = [shard for shard in shards if shard.finished() is None]
    there.run(todo, write, load, nj, SHARDS - len(todo))
    return shards


def test_a_process_that_cannot_load_its_worker_ends_the_dump(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dump-numbers: .*memory is too small \(CUDA out of memory\.\): lower --batch"):
        dump(tmp_path, without_memory)
    with pytest.raises(UserError, match="no such folder"):
        dump(tmp_path, without_folder)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(("load", "message"), [(failing, "item 3: bad"), (dying, "one of 2 processes was ended")])
def test_a_failure_ends_the_dump_and_a_rerun_finishes_it(tmp_path: Path, load: Callable, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dump(tmp_path, load)
    assert not (tmp_path / "numbers.2.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.ark") if path.with_suffix(".json").exists()}
    shards = dump(tmp_path, writer, nj=1)
    assert all(shard.finished() for shard in shards)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_the_devices_memory_is_named_without_processes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shard, "write", lambda *_: without_memory())
    with pytest.raises(UserError, match="memory is too small"):
        dump(tmp_path, writer, nj=1)


@pytest.mark.parametrize(("device", "gpus"), [("cuda", {"4", "7"}), ("cuda:1", {"4,7"}), ("cpu", {"4,7"})])
def test_processes_share_out_the_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, gpus: set[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    dump(tmp_path, placing, device=device)
    assert {path.read_text() for path in tmp_path.glob("*.place")} == gpus
