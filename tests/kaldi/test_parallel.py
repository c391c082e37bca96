"""A function over a table in several processes: as in one, in the table's order, and an end where one is killed."""

import os
import signal
from pathlib import Path

import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.leaks import shared_recordings
from espnet_gmot.kaldi.parallel import each


def halve(entry: str) -> float:
    """What the processes compute; every seventh entry is bad."""
    if int(entry) % 7 == 0:
        raise UserError(f"{entry}: a multiple of seven")
    return int(entry) / 2


def die(entry: str) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return entry


def test_several_processes_give_what_one_gives() -> None:
    table = {f"u{index}": str(index) for index in range(2600, 0, -1)}
    good, bad = each(halve, table, 2, "halve")
    assert (good, bad) == each(halve, table, 1, "halve")
    assert list(good) == [key for key in table if key not in bad] and len(bad) == 371
    assert bad["u7"] == "7: a multiple of seven"


def test_a_killed_process_ends_the_work() -> None:
    with pytest.raises(UserError, match="was ended from outside"):
        each(die, {str(index): "x" for index in range(2001)}, 2, "die")


def test_many_files_alike_are_read_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one size and one middle, as of silence: pairs of them would take hours for a corpus."""
    from espnet_gmot.kaldi import leaks

    def write(name: str, count: int) -> dict[str, str]:
        paths = {f"{name}{index}": tmp_path / f"{name}{index}.wav" for index in range(count)}
        for key, path in paths.items():
            path.write_bytes(key.encode().ljust(20) + b"\0" * 20_000)
        return {key: str(path) for key, path in paths.items()}

    first, second = write("a", 30), write("b", 30)
    Path(second["b3"]).write_bytes(Path(first["a7"]).read_bytes())
    read: list[Path] = []
    digest = leaks.sha256
    monkeypatch.setattr(leaks, "sha256", lambda path: (read.append(path), digest(path))[1])
    assert shared_recordings(first, second) == [("a7", "b3")]
    assert len(read) == 60
