"""ESPnet's files of a training, written whole or not at all, and read with a word of what is wrong with them.

ESPnet writes ``checkpoint.pth`` in place: a kill or a full disk at that moment leaves nothing to resume from. Here its
modules that save and load get a ``torch`` of their own under the global name ``torch``: the same but for ``save`` and
``load``. Nobody else's torch is touched, nor any file of ESPnet's.

ESPnet unpickles whatever a file holds (``weights_only=False``). Here only tensors, plain values and what ESPnet's
reporter keeps are read: a model from elsewhere can't run code.
"""

import contextlib
import datetime
import functools
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.files import alone, beside, read_mapping, replacing

CHECKPOINT, BACKUP = "checkpoint.pth", "checkpoint.pth.bak"
TRUST = "GMOT_TRUST_PICKLES"
"""Environment variable: 1 has files unpickled as ESPnet does, whatever they would run."""
_SCALAR = cast(Callable[..., Any], np.float64(0).__reduce__()[0])


def _scalar_in(module: str) -> Callable[..., Any]:
    """NumPy's ``scalar`` as if defined in another module; torch from 2.6 alone takes a name beside a function."""

    @functools.wraps(_SCALAR)
    def _renamed(*args: Any) -> Any:
        return _SCALAR(*args)

    _renamed.__module__ = module
    return _renamed


# What the numbers of ESPnet's reporter are made of: NumPy's scalars, durations. NumPy 2 renamed the scalars' module:
# checkpoints of either NumPy go on with the other.
_PLAIN = [_SCALAR, *(_scalar_in(name) for name in ("numpy.core.multiarray", "numpy._core.multiarray"))]
_PLAIN += [np.dtype, *(type(np.dtype(kind)) for kind in "fd"), datetime.timedelta]


class Damaged(UserError):
    """A file of a training that can't be read; ``what`` says which and why, without the fix."""

    def __init__(self, path: Path, error: Exception) -> None:
        with path.open("rb") as handle:
            pointer = handle.read(64).startswith(b"version https://git-lfs")
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
        self.what = f"{path}: damaged ({path.stat().st_size} bytes, {why})"
        fix = "restore it from a copy, or train again in another folder"
        super().__init__(f"{path}: a Git-LFS pointer, no model: git lfs pull" if pointer else f"{self.what}; {fix}")


def guard(module: ModuleType) -> None:
    """Give a module of ESPnet's the careful torch; let its trainer, if it is that module, work alone in its folder.

    Calling it again changes nothing.
    """
    if isinstance(module.torch, CarefulTorch):
        return
    module.torch = CarefulTorch("torch")  # type: ignore[attr-defined]  # ESPnet's module imports it by this name
    if hasattr(module, "Trainer"):
        module.Trainer.run = classmethod(_alone(module.Trainer.run.__func__))


class CarefulTorch(ModuleType):
    """torch, whose ``save`` and ``load`` are :func:`save` and :func:`load`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def save(state: Any, place: Any, *args: Any, **kwargs: Any) -> None:
        """See :func:`save`."""
        save(state, place, *args, **kwargs)

    @staticmethod
    def load(place: Any, *args: Any, **kwargs: Any) -> Any:
        """See :func:`load`."""
        return load(place, *args, **kwargs)


def save(state: Any, place: Any, *args: Any, **kwargs: Any) -> None:
    """``torch.save``, on the disk before it takes the file's place; the checkpoint before last stays beside it.

    Raises:
        UserError: the disk is full or the place is not writable; what was there stays.
    """
    if not isinstance(place, (str, os.PathLike)):
        torch.save(state, place, *args, **kwargs)
        return
    path = Path(place)
    with replacing(path, "wb", durable=True) as handle:
        torch.save(state, handle, *args, **kwargs)
        if path.name == CHECKPOINT and is_whole(path):
            _keep(path, path.with_name(BACKUP))


def load(place: Any, *args: Any, **kwargs: Any) -> Any:
    """``torch.load``, for files that may be missing or damaged; a resumed training's other files are made whole too.

    Raises:
        UserError: there is no such file, or it is damaged and there is no earlier one; says what to do.
    """
    if not isinstance(place, (str, os.PathLike)):
        return torch.load(place, *args, **kwargs)
    path = Path(place)
    try:
        states = unpickle(path, *args, **kwargs)
    except Damaged as error:
        if path.name != CHECKPOINT:
            raise
        backup = path.with_name(BACKUP)
        if not is_whole(backup):
            raise UserError(f"{error.what}; delete it to train anew, or restore it from a copy") from error
        logging.warning(f"{error.what}; going on from the one before it, {backup}")
        states = unpickle(backup, *args, **kwargs)
    if path.name == CHECKPOINT and "reporter" in states:
        # of mixed precision on a CPU, for one on a GPU: ESPnet takes None for "there is none"
        if states.get("scaler") == {} and torch.cuda.is_available():
            states["scaler"] = None
        if first_rank():
            finish_epoch(path.parent, states)
    return states


def unpickle(path: Path, *args: Any, **kwargs: Any) -> Any:
    """``torch.load`` of a file that can't run code: ``weights_only``, whatever was asked for.

    torch before 2.5 can't be told what else is harmless; there the trainer's own checkpoint is read as ESPnet does.

    Raises:
        UserError: there is no such file, it holds other objects, or it is :class:`Damaged`.
    """
    allow = getattr(torch.serialization, "safe_globals", None)
    trusted = os.environ.get(TRUST) == "1" or (allow is None and path.name in (CHECKPOINT, BACKUP))
    with allow(_PLAIN) if allow else contextlib.nullcontext():
        try:
            return torch.load(path, *args, **{**kwargs, "weights_only": not trusted})
        except pickle.UnpicklingError as error:
            if found := re.search(r"(?:GLOBAL|class) (\w\S+)", str(error)):
                raise UserError(
                    f"{path}: holds {found[1]}, an object that could run any code, and isn't read: save a state_dict "
                    f"of tensors instead, or, if you trust the file, set {TRUST}=1"
                ) from error
            if is_whole(path):
                raise
            raise Damaged(path, error) from error
        except FileNotFoundError as error:
            raise UserError(missing(path)) from error
        except (EOFError, OSError, RuntimeError, ValueError, KeyError, IndexError, AttributeError) as error:
            if is_whole(path):
                raise
            raise Damaged(path, error) from error


def missing(path: Path) -> str:
    """What to say of a model file that isn't there."""
    there = ", ".join(sorted(other.name for other in path.parent.glob("*.pth"))) or "none"
    return (
        f"{path}: no such file (models there: {there}); train first, give one that is there, or have ESPnet keep this "
        "one (best_model_criterion in the configuration)"
    )


def is_whole(path: Path) -> bool:
    """Whether a file that torch saved is all there: the list of its parts stands at its end."""
    return zipfile.is_zipfile(path)


def finish_epoch(folder: Path, states: dict[str, Any]) -> None:
    """Do what ESPnet does after it has saved a checkpoint, wherever a kill kept it from that.

    Args:
        folder: of the training.
        states: the checkpoint.
    """
    from espnet2.train.reporter import Reporter

    reporter = Reporter()
    reporter.load_state_dict(states["reporter"])
    epoch = reporter.get_epoch()
    model = folder / f"{epoch}epoch.pth"
    if not is_whole(model):
        logging.warning(f"{model}: missing or damaged: made again from {CHECKPOINT}")
        save(states["model"], model)
    _link(folder / "latest.pth", model.name)
    for phase, key, mode in _criteria(folder / "config.yaml"):
        if reporter.has(phase, key):
            best = f"{reporter.get_best_epoch(phase, key, mode)}epoch.pth"
            _link(folder / f"{phase}.{key}.best.pth", best)


def _criteria(config: Path) -> list[list[str]]:
    return read_mapping(config).get("best_model_criterion") or [] if config.is_file() else []


def _link(link: Path, target: str) -> None:
    """Have ``link`` point to ``target``, at no moment missing."""
    if link.is_symlink() and os.readlink(link) == target:
        return
    new = beside(link)
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    os.replace(new, link)


def _keep(path: Path, backup: Path) -> None:
    """Give a file a second name that stays when another file takes the first; on disks that can't, there is none."""
    new = beside(backup)
    try:
        new.unlink(missing_ok=True)
        os.link(path, new)
        os.replace(new, backup)
    except OSError as error:
        logging.info(f"{backup}: not kept ({error.strerror})")


def first_rank() -> bool:
    """Whether this process is the only one of a training, or the first of several."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def _alone(run: Callable[..., None]) -> Callable[..., None]:
    """ESPnet's training loop, for one training a folder."""

    @functools.wraps(run)
    def run_alone(cls: type, *args: Any, **kwargs: Any) -> None:
        """Train, as ESPnet does.

        Raises:
            UserError: another training holds the folder, or the model is to be replicated by torch's DataParallel.
        """
        options, distributed = kwargs.get("trainer_options"), kwargs.get("distributed_option")
        several = distributed is not None and distributed.distributed
        if options and options.ngpu > 1 and not several and hasattr(kwargs.get("model"), "gmot_config"):
            raise UserError(
                f"--ngpu {options.ngpu}: `model: gmot` wants a process for each GPU: give ESPnet "
                "--multiprocessing_distributed true"
            )
        if options is None or not first_rank():
            return run(cls, *args, **kwargs)
        with alone(Path(options.output_dir)):
            return run(cls, *args, **kwargs)

    return run_alone
