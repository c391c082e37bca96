"""No process outlives the one that waits for it: a training that went on unseen would write into its own resumption."""

import os
import select
import threading
import time


def end_with_parent(seconds: float = 1.0) -> None:
    """End this process soon after its parent, however that one ends.

    Args:
        seconds: how often to look.
    """
    threading.Thread(target=_watch, args=(os.getppid(), seconds), daemon=True).start()


def end_with(process: int) -> None:
    """End this process as soon as another one is gone, which needn't be its parent: a fork server's workers have that.

    Args:
        process: number of the other one, on this machine.
    """
    threading.Thread(target=_wait, args=(process,), daemon=True).start()


def _wait(process: int) -> None:
    try:
        handle = os.pidfd_open(process)  # Linux; names this very process, whoever gets its number later
    except ProcessLookupError:
        os._exit(1)
    except (AttributeError, OSError):
        while _there(process):
            time.sleep(1.0)
    else:
        select.select([handle], [], [])
    os._exit(1)


def _there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _watch(parent: int, seconds: float) -> None:
    while os.getppid() == parent:  # an orphan is adopted by another process
        time.sleep(seconds)
    os._exit(1)
