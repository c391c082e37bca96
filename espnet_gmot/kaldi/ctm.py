"""CTM files: when which token of an utterance is spoken (NIST's time-marked conversation format)."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.kaldi.tables import read_lines


class Timed(NamedTuple):
    """A token with its start and duration in seconds, and a confidence from 0 to 1."""

    token: str
    start: float
    duration: float
    confidence: float = 1.0


def write_ctm(path: str | Path, utterances: Mapping[str, Iterable[Timed]]) -> None:
    """Write ``utterance 1 start duration token confidence`` lines, times in milliseconds' precision, atomically."""
    write_text(path, "".join(format_ctm(name, utterances[name]) for name in sorted(utterances)))


def format_ctm(utterance: str, tokens: Iterable[Timed]) -> str:
    """The lines of one utterance."""
    name = field(utterance)
    return "".join(f"{name} 1 {t.start:.3f} {t.duration:.3f} {field(t.token)} {t.confidence:.3f}\n" for t in tokens)


def field(text: str) -> str:
    """A name or a token as one field of a line: without white space, ``_`` in its place."""
    return "_".join(text.split()) or "_"


def read_ctm(path: str | Path) -> dict[str, list[Timed]]:
    """Tokens of every utterance, in the order of their start.

    Raises:
        UserError: no such file, or a line that is no CTM.
    """
    utterances: dict[str, list[Timed]] = {}
    for number, line in read_lines(Path(path)):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        try:
            name, _, start, duration, token = fields[:5]
            confidence = float(fields[5]) if len(fields) > 5 else 1.0
            utterances.setdefault(name, []).append(Timed(token, float(start), float(duration), confidence))
        except ValueError as error:
            raise UserError(
                f"{path}:{number}: '{line}' is no CTM; a line reads `utterance channel start duration token`"
            ) from error
    return {name: sorted(tokens, key=lambda token: token.start) for name, tokens in utterances.items()}
