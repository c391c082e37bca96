"""In front of PYTHONPATH: every attempt of a Python process to reach a network fails, and is noted with its way there.

Sockets between processes of this machine (AF_UNIX) stay. The file that ``GMOT_NETWORK_LOG`` names gets the notes.
"""

import os
import socket
import traceback
from typing import Any, NoReturn


def _refuse(*arguments: Any, **_: Any) -> NoReturn:
    with open(os.environ["GMOT_NETWORK_LOG"], "a", encoding="utf8") as log:
        log.write(f"{arguments[:2]!r}\n{''.join(traceback.format_stack()[:-1])}\n")
    raise OSError(101, "Network is unreachable (a test blocks it)")


class _Socket(socket.socket):
    """A socket that connects to sockets of this machine only."""

    def connect(self, address: Any) -> None:
        """Refused unless AF_UNIX."""
        if self.family != socket.AF_UNIX:
            _refuse(address)
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        """Refused unless AF_UNIX."""
        if self.family != socket.AF_UNIX:
            _refuse(address)
        return super().connect_ex(address)

    def sendto(self, *arguments: Any) -> int:
        """Refused unless AF_UNIX."""
        if self.family != socket.AF_UNIX:
            _refuse(arguments[-1])
        return super().sendto(*arguments)


socket.socket = _Socket  # type: ignore[misc]
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = _refuse
