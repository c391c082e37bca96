"""What differs between the versions that the package works with; the rest is written so that all of them know it."""

import torch

TORCH = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
"""torch's major and minor version."""
FUSED_ON_CPU = TORCH >= (2, 4)
"""Whether torch's fused optimizers run on the CPU."""


def cpu_autocast() -> torch.dtype | None:
    """The precision that autocast gives to the CPU right now, None where it is off."""
    if TORCH >= (2, 4):
        return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
