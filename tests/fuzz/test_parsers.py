"""Every parser reads a spoilt file, or says in a UserError of one line why not; nothing else may come out of it.

`make fuzz` searches longer (GMOT_FUZZ_EXAMPLES for each parser) and anew each time. What it found stands in FOUND: once
mended, each stays tried.
"""

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from espnet_gmot.errors import UserError
from tests.fuzz.parsers import LOG, PARSERS, STATS

EXAMPLES = int(os.environ.get("GMOT_FUZZ_EXAMPLES", "0"))
# what files go wrong by: separators, signs of formats, invisible and astral characters, numbers that overflow
_PIECES = [
    " ",
    "\n",
    "\r\n",
    "\t",
    ":",
    "|",
    ",",
    "=",
    "@",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'",
    '"',
    "\\",
    "#",
    "&",
    "*",
]
_PIECES += [
    "!!python/object:x.y",
    "- ",
    "? ",
    "%",
    "..",
    "/",
    "-1",
    "0",
    "1e400",
    "nan",
    "inf",
    "9" * 30,
    "1_0",
    "null",
]
_PIECES += ["\0", "\x1c", "\x85", "\u2028", "\u3000", "\u200b", "\ufeff", "一", "\U0001f600", "é", "--", "~", "true"]
_BYTES = [
    b"\xff",
    b"\x80",
    b"\xff\xfe",
    b"\xd4\xda",
    b"RIFF",
    b"data",
    b"fmt ",
    b"\0B",
    b"FM ",
    b"\x04",
    b"\xff\xff\xff\xff",
]
PIECES = [piece.encode() for piece in _PIECES] + _BYTES


@st.composite
def spoilt(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A good file with a few cuts, repetitions and insertions; or pieces alone; or any bytes."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        return b"".join(draw(st.lists(st.sampled_from(PIECES), max_size=12)))
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.sampled_from([0, 0, 1, 2, 4, 16, 10_000])))
        middle = draw(st.sampled_from(PIECES) | st.binary(max_size=4) | st.just(content[start:stop] * 2))
        content = content[:start] + middle + content[stop:]
    return content


def survives(name: str, content: bytes) -> None:
    """The oracle."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "input.yaml")
        path.write_bytes(content)
        try:
            PARSERS[name].read(path)
        except UserError as error:
            assert "\n" not in str(error), error
        except SystemExit as done:  # --help
            assert done.code == 0


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.filterwarnings("ignore")
def test_parsers_read_or_say_why_not(name: str) -> None:
    seeds = PARSERS[name].seeds
    for seed in seeds:
        survives(name, seed)

    @settings(
        max_examples=EXAMPLES or 25,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @example(b"")
    @given(spoilt(seeds))
    def search(content: bytes) -> None:
        """One file."""
        survives(name, content)

    search()


FOUND: list[tuple[str, bytes]] = [
    ("gmot_conf", b"[1, 2]"),
    ("gmot_conf", b"just words"),
    ("systems", b"gmot-t=gmot@e5:w_ot=1,tap=[1\ne5=DIR"),
    ("systems", b"ctc.yaml:max_epoch.x=1\n"),
    ("a system's configuration", b"\x80"),
    ("a system's configuration", b"{"),
    ("a system's configuration", b"A"),
    ("a system's configuration", b"model: gmot\nmodel_conf: x\n"),
    ("adopted configuration", b"a: [1]\nmodel_conf: :{}\n"),
    ("result.txt", b"| Sum    |\n"),
    ("results.csv", b"\x80"),
    ("experiment's tokens", b"A"),
    ("experiment's tokens", b"\x00"),
    ("options of recipe", b"--asr_args\n'x"),
    ("options of recipe", b"--stage\n1\n--asr_args\n--"),
    ("training log", LOG.replace("loss=3.5", "loss=3.3.5").encode()),
    ("training log", LOG.replace("02:41:01", "99:41:01").encode()),
    ("training log", LOG.replace("total_count=12", "total_count=nan").encode()),
    ("training log", LOG.replace("total_count=12", "total_count=inf").encode()),
    ("wav in an archive", b"u AUDIO \x04" + bytes(3) + b"RIFF" + bytes(range(40))),
    ("features", b"u \0BCM2 " + bytes(8) + b"u \0BCM2 " + bytes(40)),
    ("features", b"u \0BFM \x04\xff\xff\xff\x7f\x04\xff\xff\xff\x7f"),
    ("features", b"u RIFF\0BFM " + bytes(40)),
    ("teacher's statistics", re.sub(rb"(?<=PK\x01\x02..).", b"F", STATS, count=1, flags=re.S)),
    ("archive", b"\x1f\x8b\x08\r\n"),
]


@pytest.mark.parametrize(("name", "content"), FOUND)
@pytest.mark.filterwarnings("ignore")
def test_what_was_found_once(name: str, content: bytes) -> None:
    survives(name, content)
