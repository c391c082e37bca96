"""A training's files: whole or absent, and a word where they are damaged or missing."""

import logging
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from espnet_gmot.errors import UserError
from espnet_gmot.hosts import checkpoints
from espnet_gmot.hosts.checkpoints import BACKUP, CHECKPOINT, load, save

pytestmark = pytest.mark.espnet


def states(epoch: int, losses: list[float]) -> dict[str, Any]:
    """What ESPnet saves: the model's parameters say the epoch."""
    stats = {number: {"valid": {"loss": loss}} for number, loss in enumerate(losses, 1)}
    return {"model": {"x": torch.tensor([float(epoch)])}, "reporter": {"epoch": epoch, "stats": stats}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"best_model_criterion": [["valid", "loss", "min"]]}))
    for epoch in (1, 2):
        save(states(epoch, [3.0, 2.0][:epoch]), tmp_path / CHECKPOINT)
        if epoch == 1:
            save(states(epoch, [3.0])["model"], tmp_path / "1epoch.pth")
    return tmp_path


def test_a_torch_that_is_the_same_but_for_save_and_load() -> None:
    module = ModuleType("module")
    module.torch = torch
    for _ in range(2):
        checkpoints.guard(module)
    assert module.torch.save is not torch.save and module.torch.load is not torch.load
    assert module.torch.nn is torch.nn and module.torch.cuda.is_available is torch.cuda.is_available
    with pytest.raises(AttributeError, match="nonsense"):
        _ = module.torch.nonsense


def test_a_kill_after_the_checkpoint_costs_neither_the_epochs_model_nor_the_links(folder: Path) -> None:
    (folder / "valid.loss.best.pth").symlink_to("1epoch.pth")
    found = load(folder / CHECKPOINT, weights_only=False)
    assert found["reporter"]["epoch"] == 2
    assert load(folder / "2epoch.pth")["x"] == 2
    assert os.readlink(folder / "latest.pth") == os.readlink(folder / "valid.loss.best.pth") == "2epoch.pth"
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    folder: Path, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / CHECKPOINT
    os.truncate(path, kept)
    assert load(path, weights_only=False)["reporter"]["epoch"] == 1
    assert f"{path}: damaged ({kept} bytes" in caplog.text and BACKUP in caplog.text
    os.truncate(path.with_name(BACKUP), kept)
    with pytest.raises(UserError, match=rf"{CHECKPOINT}: damaged \({kept} bytes, .*delete it to train anew") as error:
        load(path, weights_only=False)
    assert "\n" not in str(error.value)


def test_mixed_precision_on_a_cpu_leaves_no_scaler_for_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ESPnet would load the empty state of a scaler that was off, which torch refuses; None it takes."""
    for kept, on_gpu, found in (({}, True, None), ({}, False, {}), ({"scale": 2.0}, True, {"scale": 2.0})):
        monkeypatch.setattr(torch.cuda, "is_available", lambda on_gpu=on_gpu: on_gpu)
        save({**states(2, [3.0, 2.0]), "scaler": kept}, folder / CHECKPOINT)
        assert load(folder / CHECKPOINT)["scaler"] == found


@pytest.mark.parametrize(
    ("ngpu", "distributed", "gmot"), [(2, False, True), (2, True, True), (1, False, True), (2, False, False)]
)
def test_several_gpus_in_one_process_are_refused(tmp_path: Path, ngpu: int, distributed: bool, gmot: bool) -> None:
    """ESPnet's default without --multiprocessing_distributed: replicas would share hooks, teacher and schedule."""
    trained = []
    run = checkpoints._alone(lambda cls, **kwargs: trained.append(kwargs))
    options = SimpleNamespace(ngpu=ngpu, output_dir=str(tmp_path))
    model = SimpleNamespace(**({"gmot_config": None} if gmot else {}))
    words = {"trainer_options": options, "distributed_option": SimpleNamespace(distributed=distributed), "model": model}
    if (ngpu, distributed, gmot) == (2, False, True):
        with pytest.raises(UserError, match=r"^--ngpu 2: .* give ESPnet --multiprocessing_distributed true$"):
            run(object, **words)
    else:
        run(object, **words)
    assert len(trained) == (ngpu == 1 or distributed or not gmot)


def test_damaged_and_missing_models_are_named(folder: Path) -> None:
    os.truncate(folder / "1epoch.pth", 10)
    with pytest.raises(UserError, match=r"1epoch.pth: damaged \(10 bytes"):
        load(folder / "1epoch.pth")
    with pytest.raises(UserError, match=r"cer_ctc.ave.pth: no such file \(models there: 1epoch.pth, checkpoint.pth\)"):
        load(folder / "valid.cer_ctc.ave.pth")


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_a_checkpoint_of_another_numpy_is_read(tmp_path: Path, module: bytes) -> None:
    """NumPy 2 calls the module of its scalars otherwise than NumPy 1; nothing else of theirs is taken."""
    save({"loss": np.float64(1.5), "time": np.float32(0.5)}, tmp_path / "here.pth")
    for name in (b"scalar", b"_reconstruct"):
        with (
            zipfile.ZipFile(tmp_path / "here.pth") as here,
            zipfile.ZipFile(tmp_path / "there.pth", "w", zipfile.ZIP_STORED) as there,
        ):
            for part in here.namelist():
                content = here.read(part)
                own = f"{np.float64(0).__reduce__()[0].__module__}\nscalar\n".encode()
                there.writestr(part, content.replace(own, module + b"\n" + name + b"\n"))
        if name == b"scalar":
            found = load(tmp_path / "there.pth")
            assert found == {"loss": 1.5, "time": 0.5} and type(found["loss"]) is np.float64
        else:
            with pytest.raises(UserError, match="an object that could run any code"):
                load(tmp_path / "there.pth")


class Unpicklable:
    """Fails in the middle of being written, as a full disk does."""

    def __reduce__(self) -> Any:
        raise OSError(28, "No space left on device")


def test_what_was_there_stays_when_writing_fails(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = (folder / CHECKPOINT).read_bytes()
    with pytest.raises(UserError, match=f"{CHECKPOINT}: no space left on the disk"):
        save({"model": Unpicklable()}, folder / CHECKPOINT)
    assert (folder / CHECKPOINT).read_bytes() == before
    assert load(folder / BACKUP, weights_only=False)["reporter"]["epoch"] in (1, 2)
    assert not list(folder.glob(".*.tmp"))


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    return None


@pytest.mark.usefixtures("no_links")
def test_disks_without_links_have_no_backup_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for epoch in (1, 2):
        save(states(epoch, [1.0] * epoch), tmp_path / CHECKPOINT)
    assert not (tmp_path / BACKUP).exists() and "not kept" in caplog.text
