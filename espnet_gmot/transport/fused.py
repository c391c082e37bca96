"""Sinkhorn's scaling as one kernel of a GPU, by Triton, which comes with torch: what torch itself would launch a
thousand kernels for, each with less work than its launch costs."""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
from contextlib import nullcontext

import torch
from torch import Tensor

from espnet_gmot.transport.sinkhorn import NOTHING, sinkhorn_log

__all__ = ["sinkhorn"]

TILE = 8192  # entries of the kernel that one sample's threads hold at a time
WIDEST = 4096  # tokens beyond which a row is no tile any more

_refused = False


def sinkhorn(
    kernel: Tensor,
    log_a: Tensor,
    log_b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: Tensor,
    rho_a: float,
    rho_b: float,
    iterations: int,
    slack: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`sinkhorn_log`, argument for argument and within rounding, in one launch where Triton can.

    Every sample stops for itself; where Triton is missing or fails (said once), torch does the steps.
    """
    global _refused
    arguments = (kernel, log_a, log_b, f, g, epsilon, rho_a, rho_b, iterations, slack)
    if not _refused and _usable(kernel):
        try:
            return _launch(*arguments)
        except Exception as error:  # whatever a compiler of another machine may raise
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                raise  # the capture is lost; its caller goes on without one
            _refused = True
            logging.getLogger(__name__).warning(
                "transport: Triton's kernel can't run here, the solver goes on without, more slowly: %s", error
            )
    return sinkhorn_log(*arguments)


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _usable(kernel: Tensor) -> bool:
    """Whether the kernel takes a problem: float32 on a GPU, rows that a tile can hold."""
    return (
        kernel.device.type == "cuda" and kernel.dtype == torch.float32 and kernel.shape[2] <= WIDEST and _has_triton()
    )


def _launch(
    kernel: Tensor,
    log_a: Tensor,
    log_b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: Tensor,
    rho_a: float,
    rho_b: float,
    iterations: int,
    slack: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The launch: one program a sample."""
    from espnet_gmot.transport.fused_kernel import scale

    batch, frames, tokens = kernel.shape
    columns = max(16, _power_of_two(tokens))
    rows = min(_power_of_two(frames), max(1, TILE // columns))
    flat = [tensor.contiguous() for tensor in (kernel, log_a, log_b, f, g, epsilon)]
    new_f, new_g = torch.empty_like(flat[3]), torch.empty_like(flat[4])
    # Triton launches on the current device
    with torch.cuda.device(kernel.device) if kernel.device.type == "cuda" else nullcontext():
        scale[(batch,)](
            *flat,
            flat[5] if slack is None else slack.contiguous(),
            new_f,
            new_g,
            frames,
            tokens,
            0.0 if math.isinf(rho_a) else rho_a,
            0.0 if math.isinf(rho_b) else rho_b,
            iterations,
            EXACT_A=math.isinf(rho_a),
            EXACT_B=math.isinf(rho_b),
            STOPS=slack is not None,
            NOTHING=NOTHING,
            ROWS=rows,
            COLUMNS=columns,
            num_warps=max(1, min(16, rows * columns // 512)),
        )
    return new_f, new_g


def _power_of_two(size: int) -> int:
    """The least power of two that is no less."""
    return 1 << max(0, size - 1).bit_length()
