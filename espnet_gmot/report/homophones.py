"""Substitutions that sound alike: the same syllable, with or without the same tone, in another character."""

from functools import cache
from typing import Any

from espnet_gmot.errors import UserError

TONED, TONELESS, OTHER = "same syllable and tone", "same syllable, other tone", "other"


def similarity(reference: str, hypothesis: str) -> str:
    """How alike two characters sound, by all readings that each can have (the text isn't parsed for the right one).

    Args:
        reference: a character, or any other token.
        hypothesis: likewise.

    Returns:
        :data:`TONED`, :data:`TONELESS` or :data:`OTHER`; tokens that aren't Chinese characters are other.

    Raises:
        UserError: pypinyin isn't installed.
    """
    ours, theirs = readings(reference), readings(hypothesis)
    if ours & theirs:
        return TONED
    syllables = [{reading.rstrip("12345") for reading in each} for each in (ours, theirs)]
    return TONELESS if syllables[0] & syllables[1] else OTHER


@cache
def readings(token: str) -> frozenset[str]:
    """All pinyin readings of a character, the tone as a digit (5 is the neutral one); empty for anything else.

    Raises:
        UserError: pypinyin isn't installed.
    """
    if len(token) != 1 or token.isascii():
        return frozenset()
    try:
        from pypinyin import Style, pinyin
    except ImportError as error:
        raise UserError("homophones: need pypinyin: pip install 'espnet_gmot[report]'") from error
    options: dict[str, Any] = {
        "style": Style.TONE3,
        "heteronym": True,
        "errors": "ignore",
        "neutral_tone_with_five": True,
    }
    return frozenset(reading for found in pinyin(token, **options) for reading in found)
