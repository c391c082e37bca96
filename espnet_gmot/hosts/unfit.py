"""What a model can't take: recordings shorter than its layers need, texts that its tokens don't spell."""

import contextlib
import logging
from collections.abc import Iterator, Sequence

from espnet_gmot.errors import UserError

_LOG = logging.getLogger(__name__)
_UNKNOWN = ("<unk>", "[UNK]")
_MOST = 0.5
"""Share of unknown tokens beyond which times say nothing."""
# what torch says of a convolution's or a window's input that is shorter than what it needs
_SHORT = ("Padding size should be less than", "Kernel size can't be greater than", "is too short for subsampling")


@contextlib.contextmanager
def long_enough(name: str) -> Iterator[None]:
    """Turn what the layers say of a recording that is too short into a ``UserError``.

    Args:
        name: the recording, for the message.
    """
    try:
        yield
    except Exception as error:  # ESPnet has an error of its own for it in some encoders, torch a RuntimeError
        if not any(words in str(error) for words in _SHORT):
            raise
        raise UserError(f"{name}: too short for this model: give a longer recording") from error


def check_spelling(pieces: Sequence[str], units: Sequence[str], where: str, *, needed: bool) -> None:
    """Warn of what a model's tokens don't spell.

    Args:
        pieces: a text's tokens as the model gets them.
        units: the same as the text has them.
        where: the text, for messages.
        needed: whether the tokens are all that is known of the text: then most of them have to be spelt.

    Raises:
        UserError: more than half aren't, and they are needed.
    """
    lost = [index for index, piece in enumerate(pieces) if piece in _UNKNOWN]
    if not lost:
        return
    named = dict.fromkeys(units[index] for index in lost) if len(units) == len(pieces) else {}
    names = f" ({' '.join(list(named)[:20])})" if named else ""
    what = f"{where}: {len(lost)} of {len(pieces)} tokens aren't among the model's{names}"
    if needed and len(lost) > _MOST * len(pieces):
        raise UserError(
            f"{what}: write the text as in the training set (simplified or traditional characters, capitals or small "
            "letters)"
        )
    _LOG.warning("%s: they count as <unk>", what)
