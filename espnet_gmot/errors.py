"""The one error that users are meant to read."""


class UserError(Exception):
    """Bad input or a missing piece that the user can mend.

    The message is one line that names the file or option, the value it got and the fix. The command line prints it
    without a traceback and exits with status 1; everything else is a defect of ours and keeps its traceback.
    """
