"""What of a transcript a teacher reads: one rule, for archives (dump-teacher) and for online teachers alike.

* White space and characters that nobody sees are those of :func:`espnet_gmot.kaldi.tables.clean_text`.
* Non-linguistic symbols, those of ESPnet's ``--nlsyms_txt``, are dropped; letters on both sides of one stay apart.
  Brackets alone make no symbol: ``<b>`` and ``[1]`` are read as they stand unless the list names them.

What is left may be empty: such an utterance has nothing to teach, and takes no part in the transfer.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.tables import clean_text, read_lines

_LETTER = "[0-9A-Za-z\u00c0-\u024f]"
#: Stands in a text where a symbol stood.
GONE = "\0"
_BETWEEN = re.compile(f"(?<={_LETTER}){GONE}+(?={_LETTER})")


class Cleaner:
    """Transcripts as a teacher reads them.

    Args:
        symbols: non-linguistic symbols, such as ``<NOISE>``.
    """

    def __init__(self, symbols: Iterable[str] = ()) -> None:
        self.symbols = {symbol.strip() for symbol in symbols} - {""}
        longest_first = sorted(self.symbols, key=lambda symbol: (-len(symbol), symbol))
        self._symbol = re.compile("|".join(map(_alone, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """The text without what is nothing to read; empty if nothing is left. :data:`GONE` counts as a symbol."""
        if self._symbol is not None:
            text = self._symbol.sub(GONE, text)
        return clean_text(_BETWEEN.sub(" ", text))  # which drops what stands for a symbol


def read_symbols(path: str | Path) -> list[str]:
    """The symbols of ESPnet's ``--nlsyms_txt``, one on each line.

    Raises:
        UserError: the file is missing or not UTF-8.
    """
    if not Path(path).is_file():
        raise UserError(f"--nlsyms_txt {path}: no such file; give a list of symbols, one on each line")
    return [line for _, line in read_lines(Path(path)) if line]


def _alone(symbol: str) -> str:
    """A pattern of the symbol that finds none inside a longer word: NOISE isn't in NOISELESS."""
    before = f"(?<!{_LETTER})" if re.match(_LETTER, symbol) else ""
    after = f"(?!{_LETTER})" if re.match(_LETTER, symbol[-1]) else ""
    return before + re.escape(symbol) + after
