"""Headers of wav files: RIFF, RF64 and BW64, with the sizes they announce compared with what is there.

libsndfile reads a wav that was cut short without a word, and one whose header was never filled in (its writer wrote
into a pipe: ffmpeg leaves 0xFFFFFFFF, sox 0x7FFFF000 or 0) as empty or not at all. Chunks: Multimedia Programming
Interface and Data Specifications 1.0 (RIFF); EBU Tech 3306 (RF64); ITU-R BS.2088 (BW64).
"""

import struct
from dataclasses import dataclass
from typing import IO

from espnet_gmot.errors import UserError

MAGIC = (b"RIFF", b"RF64", b"BW64")
"""What a wav file begins with."""
_IN_DS64 = 0xFFFFFFFF  # RF64 and BW64 keep their sizes in a chunk of 64-bit numbers
_NEVER_FILLED_IN = 0x7FFFF000  # no utterance has 2 GB: sizes from here on are placeholders


@dataclass(frozen=True)
class Header:
    """What a wav's header says, and what is there.

    Attributes:
        rate: samples a second.
        channels: number of channels.
        block: bytes of one sample of all channels; 1 where the encoding has no fixed size.
        start: where the samples begin, in bytes from the beginning.
        length: bytes of samples that are there and belong to the wav.
        streamed: whether the header lacks its sizes, so that the samples go on to the end.
        plain: whether every program reads it: RIFF with true sizes.
    """

    rate: int
    channels: int
    block: int
    start: int
    length: int
    streamed: bool
    plain: bool

    @property
    def frames(self) -> int:
        """Number of samples of each channel."""
        return self.length // self.block


def read_header(stream: IO[bytes], size: int, name: str) -> Header | None:
    """Read a wav's header.

    Args:
        stream: stands at the wav's first byte; may lie inside an archive.
        size: number of bytes that are there from that place on.
        name: for messages.

    Returns:
        The header, or None if this is no wav at all.

    Raises:
        UserError: cut short of what the header announces.
    """
    begin = stream.tell()
    head = stream.read(12)
    if head[:4] not in MAGIC or head[8:] != b"WAVE":
        return None
    whole = struct.unpack("<I", head[4:8])[0]
    data64, rate, channels, block = None, 0, 0, 0
    while len(chunk := stream.read(8)) == 8:
        kind, length = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        if kind == b"data":
            start = stream.tell() - begin
            if rate == 0:
                raise UserError(f"{name}: a wav without a format before its samples; restore the file")
            length, streamed = _data_length(length, data64, whole, size - start, size)
            if length > size - start:
                raise UserError(f"{name}: truncated, {size - start} of {length} bytes of samples; restore the file")
            plain = not streamed and head[:4] == b"RIFF"
            return Header(rate, channels, max(1, block), start, length, streamed, plain)
        body = stream.read(min(length, 64)) if kind in (b"fmt ", b"ds64") else b""
        if kind == b"fmt " and len(body) >= 16:
            channels, rate, _, block = struct.unpack("<HIIH", body[2:14])
        if kind == b"ds64" and len(body) >= 16:
            data64 = struct.unpack("<Q", body[8:16])[0]
        stream.seek(length + length % 2 - len(body), 1)
    raise UserError(f"{name}: truncated before its samples ({size} bytes); restore the file")


def _data_length(length: int, data64: int | None, whole: int, there: int, size: int) -> tuple[int, bool]:
    """Bytes of samples, and whether the header doesn't say so, which makes it all that is there."""
    if length == _IN_DS64 and data64 is not None:
        length = data64
        if length == 0 or length == (1 << 64) - 1:
            return there, True
        return length, False
    if length >= _NEVER_FILLED_IN and there < length:
        return there, True
    if length == 0 and there > 0 and whole + 8 != size:
        return there, True
    return length, False


def mended(wav: bytes, header: Header) -> bytes:
    """The same wav as a plain RIFF file with true sizes, which libsndfile reads to the end.

    Args:
        wav: the file from its first byte on.
        header: what :func:`read_header` said of it.
    """
    start, stop = header.start, header.start + header.length
    sizes = (struct.pack("<I", min(size, _IN_DS64)) for size in (stop - 8, header.length))
    return b"RIFF" + next(sizes) + wav[8 : start - 4] + next(sizes) + wav[start:stop]
