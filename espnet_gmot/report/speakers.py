"""Who speaks an utterance: trn files write ``speaker-utterance``, and either may have hyphens of its own."""

import logging
from collections.abc import Iterable
from pathlib import Path

from espnet_gmot.kaldi.tables import read_lines

_LOG = logging.getLogger(__name__)
PARENTHESES = str.maketrans("()", "[]")  # what stage 13 writes for them


def cut(key: str) -> str:
    """What stands before the first hyphen of ``speaker-utterance``: a guess, right for speakers without hyphens."""
    return key.split("-")[0]


def speakers(folder: Path, keys: Iterable[str]) -> dict[str, str]:
    """The speaker of every ``speaker-utterance`` of a scored set.

    The decoded ``text`` beside the score folder names the utterances, so that what stands before is the speaker. Where
    it doesn't, :func:`cut` guesses, and a warning says so if that makes one speaker of all.

    Args:
        folder: score_cer of a set, with its trn files.
        keys: names in these files.
    """
    text = folder.parent / "text"
    ids: set[str] = set()
    if text.is_file():
        words = [line.split(maxsplit=1)[0] for _, line in read_lines(text) if line.strip()]
        ids = {*words, *(word.translate(PARENTHESES) for word in words)}
    found = {key: _speaker(key, ids) for key in keys}
    if len(set(found.values())) == 1 and len(found) > 1 and not ids and any(key.count("-") > 1 for key in found):
        one = next(iter(found.values()))
        _LOG.warning(
            "%s: no such file, so speakers are what stands before the first hyphen: that makes %s of all %d "
            "utterances; put what stage 12 decoded there",
            *(text, one, len(found)),
        )
    return found


def _speaker(key: str, ids: set[str]) -> str:
    """What is left of a name without its utterance, the longest that fits."""
    for place, sign in enumerate(key):
        if sign == "-" and key[place + 1 :] in ids:
            return key[:place]
    return cut(key)
