"""Compile the kernels in a process of its own, so that every process runs what lies in the disk cache.

The process that compiles runs other machine code than those that read what it keeps: numba optimises the functions once
more when it puts them together for the cache. Its results would differ from theirs in the last bits, and a training
that happened to be a machine's first would go another way than the same training again.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import time
from typing import Any

from numba.core import event
from numba.core.typing.typeof import Purpose, typeof

_LOG = logging.getLogger(__name__)


def prepare(kernels: Any, arguments: tuple[object, ...]) -> None:
    """Have a dispatcher ready for these arguments: from its cache, into which another process compiles if need be.

    Args:
        kernels: numba's dispatcher. One without a cache compiles here, in every process alike.
        arguments: as it will be called with.
    """
    signature = tuple(typeof(argument, Purpose.argument) for argument in arguments)
    if _is_kept(kernels, signature):
        return
    _LOG.warning("transport: compiling the CPU kernels: once on this machine, one to three minutes")
    began, place = time.perf_counter(), kernels.stats.cache_path
    if place:
        _compile_apart(signature)
    kernels.compile(signature)  # reads what is kept now; without it, compiles
    kept = f", kept in {place}" if place else ""
    _LOG.warning("transport: compiled in %.0f s%s", time.perf_counter() - began, kept)


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


def _compile_apart(signature: tuple[object, ...]) -> None:
    """Compile into the cache by another process; where none can be started, nothing happens."""
    command = "from espnet_gmot.transport.compiled.apart import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        subprocess.run([sys.executable, "-c", command], input=pickle.dumps(signature), env=environment, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        _LOG.warning("transport: no process of its own could compile the CPU kernels (%s), so this one does", error)


def main() -> None:
    """The other process: reads a signature from its standard input."""
    from espnet_gmot.transport.compiled.solver import solve_batch

    solve_batch.compile(pickle.loads(sys.stdin.buffer.read()))  # type: ignore[attr-defined]  # noqa: S301 - ours
