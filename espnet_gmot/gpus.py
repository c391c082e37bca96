"""The machine's GPUs, asked for without beginning to use one (where NVML answers)."""

import os
import subprocess


def visible() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def card() -> str:
    """What the first visible GPU is called, without commas; "a GPU" where nvidia-smi can't be asked."""
    first = next(iter(visible()), "0")
    command = ["nvidia-smi", "-i", first, "--query-gpu=name", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "a GPU"
    return asked.stdout.strip().replace(",", " ") if asked.returncode == 0 else "a GPU"
