"""What torch can compute on this machine in the precision that autocast asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from espnet_gmot.compat import cpu_autocast
from espnet_gmot.errors import UserError


@cache
def lstm_trains(precision: torch.dtype, device: str = "cpu") -> bool:
    """Whether an LSTM trains under autocast here; a tiny one is tried, once for each precision.

    Which processor has which arithmetic, and what oneDNN makes of it, changes from release to release.

    Args:
        precision: autocast's.
        device: torch device type.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.autocast(device, precision):
            torch.nn.LSTM(8, 8, device=device)(torch.ones(2, 1, 8, device=device))[0].sum().backward()
    except RuntimeError:
        return False
    return True


@contextmanager
def explaining_autocast() -> Iterator[None]:
    """A step of training: where this CPU has no LSTM in autocast's precision, say so instead of oneDNN's error.

    Raises:
        UserError: an error came up, and a tiny LSTM meets one too.
    """
    try:
        yield
    except RuntimeError as error:
        precision = cpu_autocast()
        if precision is not None and not lstm_trains(precision):
            raise UserError(
                f"use_amp: torch {torch.__version__} trains no LSTM in {str(precision).removeprefix('torch.')} on this "
                "CPU (rnn encoders and the decoders of transducers and attention are LSTMs): train in float32"
            ) from error
        raise
