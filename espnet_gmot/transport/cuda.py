"""Outer steps on a GPU: one captured as a CUDA graph and replayed, and a stop that lets the device never run idle."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

__all__ = ["Watch", "captured"]

S = TypeVar("S")
WORTH = 4  # outer steps from which a capture is tried: it costs about two steps from Python and saves the rest theirs
LEAD = 3  # steps that the host may be ahead of the device: enough to keep it busy, few enough to stop soon

_refused = False


class Watch:
    """Tells that every sample is done: at once on a CPU, `LEAD` steps late on a GPU.

    On a GPU each step's answer travels beside the work. The host waits for that of `LEAD` steps ago only, while the
    device works on those since. Samples that are done do not change any more, so a late stop costs time alone.
    """

    def __init__(self, done: Tensor) -> None:
        self._on_host = done.device.type == "cpu"
        self._answers: deque[tuple[torch.cuda.Event, Tensor]] = deque()

    def __call__(self, done: Tensor) -> bool:
        """Whether all of `done` (B,) bool is known to be true."""
        if self._on_host:
            return bool(done.all())
        flag = torch.empty((), dtype=torch.bool, pin_memory=True)
        flag.copy_(done.all(), non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(done.device))
        self._answers.append((arrived, flag))
        if len(self._answers) <= LEAD:
            return False
        arrived, flag = self._answers.popleft()
        arrived.synchronize()
        return bool(flag)


def captured(step: Callable[[S, Any], S], state: S, steps: int) -> Callable[[S, Any], S]:
    """A step that is replayed as a CUDA graph where the state is on a GPU and enough steps follow; else the step.

    Args:
        step: a function of the state, a dataclass of tensors, and of a number; it must not wait for the device.
        state: the first state; the captured step starts from it, and gives the same object every time.
        steps: how many steps may follow.
    """
    global _refused
    device = next(iter(vars(state).values())).device
    if device.type != "cuda" or steps < WORTH or _refused or torch.cuda.is_current_stream_capturing():
        return step
    try:
        return _Graph(step, state, device)
    except torch.cuda.OutOfMemoryError:  # a capture needs memory of its own: this batch goes without
        return step
    except RuntimeError as error:
        _refused = True
        logging.getLogger(__name__).warning(
            "transport: no CUDA graph can be captured here, the solver goes on without, more slowly: %s", error
        )
        return step


class _Graph(Generic[S]):
    """One step over fixed memory: reads the state there and writes its successor back.

    torch.cuda.graph would empty the allocator's cache and wait for the device at every capture, so the capture is
    begun and ended here. The last graph of a stream lives on, with its state: the next one takes over its memory,
    which the stream's order keeps from the replays still under way.
    """

    def __init__(self, step: Callable[[S, Tensor], S], state: S, device: torch.device) -> None:
        names = [field.name for field in fields(type(state))]  # type: ignore[arg-type]  # S is a dataclass
        self._state = type(state)(**{name: getattr(state, name).clone() for name in names})
        self._number, self._graph = torch.ones((), device=device), torch.cuda.CUDAGraph()
        here = torch.cuda.current_stream(device)
        last = _last.get((device, here.cuda_stream))
        # libraries keep memory for every stream they ever saw: always the same one
        self._aside: torch.cuda.Stream = last._aside if last else torch.cuda.Stream(device)
        self._aside.wait_stream(here)
        with torch.cuda.stream(self._aside):
            step(
                self._state, self._number
            )  # libraries set themselves up in a first run, which no capture would survive
            # other threads (pinning, communication) may use the device meanwhile
            self._graph.capture_begin(last._graph.pool() if last else None, capture_error_mode="thread_local")
            try:
                fresh = step(self._state, self._number)
                for name in names:
                    getattr(self._state, name).copy_(getattr(fresh, name))
            finally:
                self._graph.capture_end()
        here.wait_stream(self._aside)
        _last[device, here.cuda_stream] = self

    def __call__(self, state: S, number: float) -> S:
        """The next state, in place; `state` must be the last one given, or the one it was captured from."""
        self._number.fill_(number)
        self._graph.replay()
        return self._state


_last: dict[tuple[torch.device, int], _Graph[Any]] = {}
