"""Files from elsewhere: what they hold is never run, whatever reads them."""

import io
import os
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import pytest
import torch

from espnet_gmot.corpora.aishell import main as prepare_data
from espnet_gmot.corpora.download import download
from espnet_gmot.errors import UserError
from espnet_gmot.files import read_mapping
from espnet_gmot.hosts.checkpoints import TRUST, load, unpickle
from espnet_gmot.kaldi.ark import read_matrix
from espnet_gmot.kaldi.tables import write_table
from espnet_gmot.teacher.normalise import FeatureStats
from tests.recipe.corpus import corpus_files, tgz, wav_bytes

PWNED = Path("pwned")


class Touch:
    """Makes the file `pwned` when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {PWNED}",)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AISHELL", "AISHELL_URL", "GMOT_MAX_UTTS", TRUST):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_models_that_would_run_code(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"weight": torch.zeros(1), "more": Touch()}, "model.pth")
    for read in (unpickle, load):  # load: what ESPnet calls with weights_only=False
        with pytest.raises(UserError, match=rf"^model\.pth: holds \w+\.system, .* {TRUST}=1$"):
            read(Path("model.pth"), map_location="cpu", weights_only=False)
    assert not PWNED.exists()
    monkeypatch.setenv(TRUST, "1")
    unpickle(Path("model.pth"))
    assert PWNED.exists()  # the user said so; and the test's model does what it says


def test_models_of_the_old_format_without_zip() -> None:
    torch.save({"more": Touch()}, "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"old\.pth: holds"):
        unpickle(Path("old.pth"))
    assert not PWNED.exists()


def test_what_espnets_checkpoints_hold_is_read() -> None:
    import datetime

    stats = {1: {"valid": {"loss": np.float64(0.5), "acc": np.float32(1), "time": datetime.timedelta(seconds=2)}}}
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict()
    torch.save(
        {"model": {"x": torch.ones(1)}, "reporter": {"epoch": 1, "stats": stats}, "optimizers": [optimizer]}, "c"
    )
    assert unpickle(Path("c"))["reporter"]["stats"] == stats


def test_archives_that_hold_pickles_or_name_commands() -> None:
    with open("a.ark", "wb") as ark:
        ark.write(b"u PKL")
        np.save(ark, np.array([Touch()], dtype=object), allow_pickle=True)
    for entry in ("a.ark:2", f"touch {PWNED} |"):
        with pytest.raises(UserError):
            read_matrix(entry)
    kaldiio.save_ark("b.ark", {"u": np.ones((2, 3), np.float32)})
    assert read_matrix("b.ark:2").shape == (2, 3)
    assert not PWNED.exists()


def test_statistics_that_hold_pickles() -> None:
    stream = io.BytesIO()
    np.savez(stream, note=np.array(Touch(), dtype=object), mean=np.zeros((1, 2)), rows=1)
    Path("teacher_stats.npz").write_bytes(stream.getvalue())
    with pytest.raises(UserError, match="damaged"):
        FeatureStats.load("teacher_stats.npz")
    assert not PWNED.exists()


def test_configurations_that_make_objects() -> None:
    Path("c.yaml").write_text(f"token_list: !!python/object/apply:os.system ['touch {PWNED}']\n")
    with pytest.raises(UserError, match=r"c\.yaml: no YAML"):
        read_mapping(Path("c.yaml"))
    assert not PWNED.exists()


def test_a_folders_name_in_an_archive_cannot_put_a_command_into_wav_scp(place: Path) -> None:
    """Its line break would begin another line of wav.scp, which stage 3 would give to a shell."""
    files = corpus_files({"train": 2, "dev": 1, "test": 1})
    inner = next(name for name in files if name.endswith(".tar.gz"))
    folder = f"train/S\nBAC009S01W0001 touch {PWNED} |\nS"
    files[inner] = tgz({f"{folder}/BAC009S01W0000.wav": wav_bytes("一二")})
    (place / "x.tgz").write_bytes(tgz(files))
    with pytest.raises(UserError, match=r"wav\.scp: 'BAC009S01W0000' .* a line break: rename it"):
        prepare_data(["--data", "x.tgz", "--missing", "drop"])
    for line in ("S1\nu touch pwned |\n/u.wav", "a\nb"):
        with pytest.raises(UserError, match="line break"):
            write_table("data/train/wav.scp", {"u": line})
    with pytest.raises(UserError, match="white space in an id"):
        write_table("data/train/wav.scp", {"u touch pwned |": "u.wav"})


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://x/y", "data:,x", "/etc/hostname"])
def test_only_the_web_is_downloaded(place: Path, url: str) -> None:
    with pytest.raises(UserError, match=r"not an http\(s\) address"):
        download(url, place / "x")
    assert not (place / "x").exists()
