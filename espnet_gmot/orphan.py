"""No process outlives the one that waits for it: a training that went on unseen would write into its own resumption."""

import os
import select
import threading
import time
from pathlib import Path


def end_with(process: int) -> None:
    """End this process as soon as another one is gone, however that one ends.

    Args:
        process: number of the other one, on this machine: a parent, or the owner of a fork server that has workers.
    """
    threading.Thread(target=_wait, args=(process,), daemon=True).start()


def _wait(process: int) -> None:
    try:
        handle = os.pidfd_open(process)  # Linux; names this very process, whoever gets its number later
    except ProcessLookupError:
        os._exit(1)
    except (AttributeError, OSError):
        while runs(process):
            time.sleep(1.0)
    else:
        select.select([handle], [], [])
    os._exit(1)


def runs(process: int) -> bool:
    """Whether there is a process of this number on this machine that isn't dead yet."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:  # dead, but not fetched yet by its parent: init may take its time
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return True  # no /proc
