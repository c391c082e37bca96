"""One function over a whole table of utterances and all cores; results come in the table's order."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

from espnet_gmot.errors import UserError
from espnet_gmot.orphan import end_with

T = TypeVar("T")
V = TypeVar("V")
_CHUNK = 500  # entries a process is given at a time
_ALONE = 2000  # so few are done before other processes have begun
#: As :func:`in_chunks`'s ``alone`` for work of some microseconds, which repays other processes late.
LIGHT = 20_000


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(processes: int) -> ProcessPoolExecutor:
    """Processes that need none of what this one has open, and end when it ends, however it does."""
    # "fork" would copy whatever the parent has open, and hang where it has threads
    return ProcessPoolExecutor(
        processes, mp_context=get_context("forkserver"), initializer=end_with, initargs=(os.getpid(),)
    )


def each(
    function: Callable[[str], T], table: Mapping[str, str], processes: int, title: str
) -> tuple[dict[str, T], dict[str, str]]:
    """Apply a function to every value of a table.

    Args:
        function: importable by its name; its UserError says what is wrong with an entry.
        table: entries by utterance.
        processes: how many at a time; 1 stays in this one, and so does a short table.
        title: of the progress bar.

    Returns:
        What the function gave by utterance, and why it gave nothing for the others, both in the table's order.
    """
    good: dict[str, T] = {}
    bad: dict[str, str] = {}
    with tqdm(total=len(table), desc=title, unit="utt", mininterval=1.0) as bar:
        for chunk in in_chunks(partial(_answer, function), table, processes):
            for key, answer, reason in chunk:
                if reason is None:
                    good[key] = answer
                else:
                    bad[key] = reason
            bar.update(len(chunk))
    return good, bad


def in_chunks(
    work: Callable[[list[tuple[str, V]]], T], table: Mapping[str, V], processes: int, alone: int = _ALONE
) -> Iterator[T]:
    """Apply a function to (key, value) pairs, chunk by chunk: for work so light that one answer each would cost more.

    Args:
        work: importable by its name, or picklable; what it raises comes through.
        table: values by key, picklable.
        processes: how many at a time; 1 stays in this one, and so does a short table.
        alone: the length up to which a table is short.

    Yields:
        What the function gave, in the table's order.

    Raises:
        UserError: a process was ended from outside.
    """
    items = iter(table.items())
    chunks = iter(lambda: list(islice(items, _CHUNK)), [])
    if processes <= 1 or len(table) <= alone:
        yield from map(work, chunks)
        return
    with workers(processes) as pool:
        try:
            yield from pool.map(work, chunks)
        except BrokenProcessPool as error:
            raise UserError(
                "one of the processes was ended from outside, as by a system without memory: rerun (and call this from "
                "a script of your own below `if __name__ == '__main__':` alone)"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _answer(function: Callable[[str], T], items: list[tuple[str, str]]) -> list[tuple]:
    answers: list[tuple] = []
    for key, entry in items:
        try:
            answers.append((key, function(entry), None))
        except UserError as error:
            answers.append((key, None, str(error)))
    return answers
