"""The one error that users are meant to read."""


class UserError(Exception):
    """Bad input or a missing piece that the user can mend.

    The message is one line that names the file or option, the value it got and the fix. The command line prints it
    without a traceback and exits with status 1; everything else is a defect of ours and keeps its traceback.
    """


def check_least(options: object, least: int, *names: str) -> None:
    """Raise a ``UserError`` for the first named attribute that is less than ``least``; None stands for no value."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: must be at least {least}")
