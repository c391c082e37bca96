"""RIFF headers: how long a wav file claims to be and how long it is."""

import struct
from pathlib import Path

from espnet_gmot.errors import UserError


def wav_frames(path: str | Path) -> int:
    """Number of sample frames of a wav file, from its headers alone.

    Raises:
        UserError: not a RIFF/WAVE file, no samples, or fewer bytes than the header announces (truncated).
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        if (head := stream.read(12))[:4] != b"RIFF" or head[8:] != b"WAVE":
            raise UserError(f"{path}: not a wav file ({size} bytes); fetch it again")
        block = 0
        while len(head := stream.read(8)) == 8:
            name, length = head[:4], struct.unpack("<I", head[4:])[0]
            if name == b"fmt ":
                block = struct.unpack("<H", stream.read(length)[12:14])[0]
            elif name == b"data":
                there = size - stream.tell()
                if there < length:
                    raise UserError(
                        f"{path}: truncated, {there} of {length} bytes of samples are there; fetch it again"
                    )
                if block == 0 or length < block:
                    raise UserError(f"{path}: holds no samples; fetch it again")
                return length // block
            else:
                stream.seek(length + length % 2, 1)
    raise UserError(f"{path}: truncated before its samples ({size} bytes); fetch it again")
