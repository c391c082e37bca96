"""Compile the kernels in a process of its own, so that every process runs what lies in the disk cache.

The process that compiles runs other machine code than those that read what it keeps: numba optimises the functions once
more when it puts them together for the cache. Its results would differ from theirs in the last bits, and a training
that happened to be a machine's first would go another way than the same training again.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from numba.core import event
from numba.core.typing.typeof import Purpose, typeof

_LOG = logging.getLogger(__name__)


def prepare(kernels: Any, arguments: tuple[object, ...]) -> None:
    """Have a dispatcher ready for these arguments: from its cache, into which another process compiles if need be.

    Args:
        kernels: numba's dispatcher. One without a cache compiles here, in every process alike.
        arguments: as it will be called with.
    """
    signature = _signature(arguments)
    if _is_kept(kernels, signature):
        return
    _LOG.warning("transport: compiling the CPU kernels: once on this machine, one to three minutes")
    began, place = time.perf_counter(), kernels.stats.cache_path
    if place:
        _compile_apart(arguments)
    kernels.compile(signature)  # reads what is kept now; without it, compiles
    kept = f", kept in {place}" if place else ""
    _LOG.warning("transport: compiled in %.0f s%s", time.perf_counter() - began, kept)


def _signature(arguments: Iterable[object]) -> tuple[object, ...]:
    return tuple(typeof(argument, Purpose.argument) for argument in arguments)


class _Absent(Exception):
    """The cache lacks a signature."""


class _Refusal(event.Listener):
    """Lets nothing be compiled."""

    def on_start(self, event: event.Event) -> None:
        """Numba looked into its cache in vain."""
        raise _Absent

    def on_end(self, event: event.Event) -> None:
        """Nothing was begun."""


def _is_kept(kernels: Any, signature: tuple[object, ...]) -> bool:
    """Load a signature from the cache, if it is there."""
    try:
        with event.install_listener("numba:compile", _Refusal()):
            kernels.compile(signature)
    except _Absent:
        return False
    return True


def _compile_apart(arguments: tuple[object, ...]) -> None:
    """Compile into the cache by another process; where none can be started, nothing happens."""
    words = json.dumps([_plain(argument) for argument in arguments])
    command = "from espnet_gmot.transport.compiled.apart import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        subprocess.run([sys.executable, "-c", command], input=words, text=True, env=environment, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        _LOG.warning("transport: no process of its own could compile the CPU kernels (%s), so this one does", error)


def _plain(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        return {"dtype": argument.dtype.str, "dimensions": argument.ndim}
    return argument  # a number, or the tuple of settings


def main() -> None:
    """The other process: reads from its standard input what arguments are like."""
    from espnet_gmot.transport.compiled.solver import Settings, solve_batch

    def like(word: Any) -> object:
        """An argument of the same type."""
        if isinstance(word, dict):
            return np.zeros((1,) * word["dimensions"], dtype=word["dtype"])
        return Settings(*word) if isinstance(word, list) else word

    solve_batch.compile(_signature(map(like, json.load(sys.stdin))))  # type: ignore[attr-defined]
