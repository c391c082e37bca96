"""A dump in parts: arks that are computed, checked and kept one by one, whoever computes their matrices.

A rerun keeps the arks that are whole and have the very content wanted, and computes the rest. Besides each ark
``STEM.N.ark`` lies a note, ``STEM.N.json``: the digest of what went in, what decides the features, the offsets.
"""

import argparse
import hashlib
import json
import logging
import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.files import alone, sweep, write_json
from espnet_gmot.gpus import visible
from espnet_gmot.kaldi.ark import check_archive, note_of, read_note, write_archive

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """One ark's worth of items.

    Attributes:
        path: the ark; what is known of it goes to the same name with ``.json``.
        items: what the matrices are computed from, sorted by length.
        content: what identifies the items, as JSON can hold it.
        features: what else decides the features (model, layer …).
        width: their width.
    """

    path: Path
    items: Sequence[Any]
    content: Sequence[Any]
    features: dict[str, Any]
    width: int

    @property
    def digest(self) -> str:
        """Identifies what goes into the shard."""
        return hashlib.sha256(json.dumps([self.features, self.content]).encode()).hexdigest()

    def finished(self) -> dict[str, Any] | None:
        """What is known of the ark if it is whole and has this very content, otherwise None."""
        note = read_note(note_of(self.path))
        if note is None or note["digest"] != self.digest:
            return None
        try:
            check_archive(self.path, note["offsets"], self.width)
        except UserError as error:
            _LOG.warning("computing this part again: %s", error)
            return None
        return note

    def write(
        self, matrices: Iterable[tuple[str, np.ndarray]], known: dict[str, Any], precision: str = "float32"
    ) -> None:
        """Write the ark and its note.

        Args:
            matrices: keys and (rows, width) matrices, one for each item.
            known: what else to note; read after the last matrix.
            precision: one of `espnet_gmot.kaldi.ark.PRECISIONS`.
        """
        offsets = write_archive(self.path, matrices, precision)
        note = {"digest": self.digest, "features": self.features, **known, "offsets": offsets}
        write_json(note_of(self.path), note)


#: Computes and writes one shard; calls its second argument with the number of items done, batch by batch.
Worker = Callable[[Shard, Callable[[int], Any]], None]


@dataclass(frozen=True)
class Dump:
    """A folder that a command fills with shards.

    Attributes:
        command: the command's name, for messages.
        out: the folder.
        stem: the arks are called ``STEM.N.ark``.
        most: the largest number of arks: few enough that a reader may keep all of them open.
        smallest: the smallest number of items in an ark, so small that a killed run loses little.
        device: torch device that is computed on; with a bare ``cuda`` several processes share out all GPUs.
    """

    command: str
    out: Path
    stem: str
    most: int
    smallest: int
    device: str = "cpu"

    def plan(self, items: Sequence[Any], content: Sequence[Any], features: dict[str, Any], width: int) -> list[Shard]:
        """Distribute items, sorted by length so that batches need little padding, over arks."""
        size = max(self.smallest, math.ceil(len(items) / self.most))
        parts = [slice(start, start + size) for start in range(0, len(items), size)]
        return [
            Shard(self.out / f"{self.stem}.{number}.ark", items[part], content[part], features, width)
            for number, part in enumerate(parts)
        ]

    def clear_others(
        self, features: dict[str, Any], overwrite: bool, *, more: Sequence[str] = (), ignored: str | None = None
    ) -> None:
        """Refuse a folder with other features in it, or empty it of them when told to.

        Args:
            features: what decides the features wanted.
            overwrite: empty it.
            more: names of files that go with the arks.
            ignored: a key in which features may differ: what is stale is computed again.

        Raises:
            UserError: naming what differs.
        """

        def decisive(features: dict[str, Any]) -> dict[str, Any]:
            """Features without the key in which they may differ."""
            return {key: value for key, value in features.items() if key != ignored}

        notes = sorted(self.out.glob(f"{self.stem}.*.json"))
        wanted = decisive(features)
        there = [decisive(note["features"]) for path in notes if (note := read_note(path))]
        other = next((found for found in there if found != wanted), None)
        if other is None:
            return
        if not overwrite:
            keys = [key for key in {**wanted, **other} if other.get(key) != wanted.get(key)]
            names = " and ".join({"model_digest": "model"}.get(key, key) for key in keys)
            raise UserError(
                f"--out {self.out}: already holds features with another {names} ({other} there); "
                "choose another --out, or --overwrite to replace them"
            )
        for path in [*(self.out / name for name in more), *notes, *self.out.glob(f"{self.stem}.*.ark")]:
            path.unlink(missing_ok=True)

    @contextmanager
    def filling(self, index: str, todo: Sequence[Shard]) -> Iterator[None]:
        """While shards are computed: one run alone in the folder, and no index of parts that are being replaced."""
        sweep(self.out)
        if not todo:
            yield
            return
        with alone(self.out):
            (self.out / index).unlink(missing_ok=True)
            yield

    def run(self, shards: Sequence[Shard], worker: Worker, load: Callable[[], Worker], nj: int, done: int) -> None:
        """Compute shards, longest items first: whatever is too long or too big shows at once.

        Args:
            shards: those to compute.
            worker: computes them in this process.
            load: gives each further process its worker.
            nj: processes.
            done: how many items are there already, for the progress bar.

        Raises:
            UserError: the device's memory is too small, or a process was ended; whatever else a worker raises comes
                through as it is. Finished shards stay.
        """
        from tqdm import tqdm

        if not shards:
            return
        total = done + sum(len(shard.items) for shard in shards)
        nj = min(nj, len(shards))
        try:
            with tqdm(total=total, initial=done, desc=self.command, mininterval=1, dynamic_ncols=True) as bar:
                if nj <= 1:
                    for shard in reversed(shards):
                        worker(shard, bar.update)
                else:
                    gpus = visible() if self.device == "cuda" else []
                    for size in _in_processes(shards[::-1], load, nj, gpus):
                        bar.update(size)
        except torch.cuda.OutOfMemoryError as error:
            reason = str(error).splitlines()[0][:200]
            raise UserError(
                f"{self.command}: the device's memory is too small ({reason}): lower --batch_size or --nj; "
                "what is finished is kept"
            ) from error
        except BrokenProcessPool as error:
            raise UserError(
                f"{self.command}: one of {nj} processes was ended from outside, as by a system that runs out of "
                "memory: run it again with a lower --nj or --batch_size; what is finished is kept"
            ) from error

    def collect(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """The notes of all shards, each checked once more; arks of no shard are removed.

        Raises:
            UserError: an ark isn't what was written.
        """
        notes = []
        for shard in shards:
            note = shard.finished()
            if note is None:
                raise UserError(f"{shard.path}: changed while {self.command} was running; run it again, alone")
            notes.append(note)
        names = {shard.path.name for shard in shards}
        for stale in [ark for ark in self.out.glob(f"{self.stem}.*.ark") if ark.name not in names]:
            stale.unlink()
            note_of(stale).unlink(missing_ok=True)
        return notes


def _in_processes(
    shards: Sequence[Shard], load: Callable[[], Worker], nj: int, gpus: Sequence[str] = ()
) -> Iterator[int]:
    """Compute shards, in their order, in processes of their own; gives the sizes of those that are finished."""
    threads = max(1, torch.get_num_threads() // nj)
    # spawn: a forked child of a process that has run torch threads may hang
    spawn = multiprocessing.get_context("spawn")
    places = spawn.SimpleQueue()
    for number in range(nj):
        places.put(gpus[number % len(gpus)] if gpus else None)
    with ProcessPoolExecutor(nj, spawn, _prepare, (load, threads, places)) as pool:
        try:
            for finished in as_completed([pool.submit(_work, shard) for shard in shards]):
                yield finished.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_load: Callable[[], Worker]
_worker: Worker | None = None


def _prepare(load: Callable[[], Worker], threads: int, places: "SimpleQueue[str | None]") -> None:
    """What a process begins with; the loading itself waits for `_work`, through which its errors come back."""
    global _load
    if (gpu := places.get()) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    _load = load


def _work(shard: Shard) -> int:
    """Compute a shard in this process; its number of items."""
    global _worker
    _worker = _worker or _load()
    _worker(shard, lambda _: None)
    return len(shard.items)


def add_options(parser: argparse.ArgumentParser, batch_size: int, items: str) -> None:
    """The options that every dump has; ``items`` says what a batch is made of."""
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument("--batch_size", type=int, default=batch_size, help=f"{items} per forward pass")
    parser.add_argument("--device", default="cpu", help="cpu, cuda (with --nj: all GPUs in turn), cuda:1 …")
    parser.add_argument("--overwrite", action="store_true", help="replace features of another model or layer in --out")
