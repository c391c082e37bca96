"""Options that hold options, such as ``--asr_args "--max_epoch 10"``."""

import shlex

from espnet_gmot.errors import UserError


def split_words(option: str, text: str) -> list[str]:
    """The words of an option's value, as a shell would read its quotes; nothing else of a shell is read.

    Raises:
        UserError: a quotation that doesn't end; names the option.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{option} {text!r}: {str(error).lower()}: close the quotation marks") from error
