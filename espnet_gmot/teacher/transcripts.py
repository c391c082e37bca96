"""Kaldi text files: `utterance transcript` lines."""

from collections.abc import Iterator
from pathlib import Path

from espnet_gmot.errors import UserError


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 text file, blank ends stripped.

    Raises:
        UserError: the file is missing or not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as handle:
            for number, line in enumerate(handle, 1):
                yield number, line.strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}); convert it, e.g. iconv -f gb18030 -t utf-8") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a text file") from error


def read_transcripts(path: Path) -> dict[str, str]:
    """Transcripts by utterance id, in the file's order.

    Raises:
        UserError: the file is missing, empty or not UTF-8; a transcript is empty or an id occurs twice (the line is
            named).
    """
    transcripts: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in read_lines(path):
        utterance, _, text = line.replace("\t", " ").partition(" ")
        if not utterance:
            raise UserError(f"{path}:{number}: empty line; each line must read `utterance transcript`")
        if not text.strip():
            raise UserError(f"{path}:{number}: utterance {utterance} has no transcript; add it or remove the line")
        if utterance in lines:
            raise UserError(
                f"{path}:{number}: utterance {utterance} is already on line {lines[utterance]}; remove one of them"
            )
        transcripts[utterance], lines[utterance] = text.strip(), number
    if not transcripts:
        raise UserError(f"{path}: holds no transcripts; each line must read `utterance transcript`")
    return transcripts
