"""Options that hold options, such as ``--asr_args "--max_epoch 10"``."""

import argparse
import contextlib
import io
import shlex
from collections.abc import Iterable

from espnet_gmot.errors import UserError


def refuse_dashes(words: Iterable[str]) -> None:
    """Refuse ``--option=--``, of which argparse makes an empty list before Python 3.13.

    Raises:
        UserError: naming the option.
    """
    for word in words:
        option, equals, value = word.partition("=")
        if option.startswith("--") and equals and value == "--":
            raise UserError(f"{word}: two dashes alone are no value: give another to {option}")


def split_words(option: str, text: str) -> list[str]:
    """The words of an option's value, as a shell would read its quotes; nothing else of a shell is read.

    Raises:
        UserError: a quotation that doesn't end; names the option.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{option} {text!r}: {str(error).lower()}: close the quotation marks") from error


def parse_words(
    parser: argparse.ArgumentParser, option: str, text: str, before: Iterable[str] = ()
) -> argparse.Namespace:
    """What an option's value says to another command, by that command's own parser.

    Args:
        parser: the other command's.
        option: for messages.
        text: the option's value.
        before: words that go before those of the text.

    Raises:
        UserError: the other command wouldn't take these words; it says why in one line, without that command's usage.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parser.parse_args([*before, *split_words(option, text)])
    except SystemExit as error:
        if not error.code:  # --help: it is on the screen
            raise
        why = said.getvalue().strip().rpartition(": error: ")[2]
        raise UserError(f"{option} {text!r}: {why}: `{parser.prog} --help` lists what goes here") from error
