"""What differs between the versions that the package works with; the rest is written so that all of them know it."""

import torch

TORCH = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
"""torch's major and minor version."""
FUSED_ON_CPU = TORCH >= (2, 4)
"""Whether torch's fused optimizers run on the CPU."""
