"""Files that are whole or absent: written beside their place, then moved into it; full disks get a plain sentence."""

import contextlib
import errno
import fcntl
import filecmp
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from espnet_gmot.errors import UserError
from espnet_gmot.orphan import runs


def disk_full(error: BaseException | None, place: object = None) -> UserError | None:
    """What to say of a full disk, if one is behind ``error``; torch and safetensors wrap the system's error.

    Args:
        error: any exception.
        place: what the message names; by default the file that the system's error names.
    """
    while error is not None:
        place = place or getattr(error, "filename", None)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            return UserError(
                f"{place or 'output'}: no space left on the disk (or of your quota); make room or choose another "
                "folder, then run the same command to continue"
            )
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def writing(path: Path | None = None) -> Iterator[None]:
    """Turn a full disk or a place that cannot be written into a ``UserError``; other errors are defects and stay.

    Args:
        path: what the block writes, and what the message names. Without it the block may read and run files as well:
            then the file that the system's error names, and what its permissions allow, say what went wrong.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        place = path or getattr(error, "filename", None) or "output"
        if (full := disk_full(error, place)) is not None:
            raise full from error
        if isinstance(error, OSError) and (what := _denied(error, path is None)) is not None:
            raise UserError(f"{place}: {what}") from error
        raise


def _denied(error: OSError, guess: bool) -> str | None:
    """What to say of a place that can't be written, or only guessed at can't be read; None for other errors."""
    unwritable = f"cannot be written ({error.strerror}); choose another folder"
    if error.errno in (errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return unwritable
    if error.errno not in (errno.EACCES, errno.EPERM):
        return None
    if not guess or error.filename is None:
        return unwritable
    place = Path(os.fsdecode(error.filename))
    if not os.path.lexists(place):  # it was to be made
        return unwritable
    if not os.access(place, os.R_OK):
        return f"cannot be read ({error.strerror}); mend its permissions, or choose another"
    return None if os.access(place, os.W_OK) else unwritable  # it can be read and written: a program without its x, say


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make ``folder`` the working directory for the block (Python 3.11's ``contextlib.chdir``)."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def sha256(path: Path) -> bytes:
    """The SHA-256 digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.digest()


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w", *, durable: bool = False) -> Iterator[IO[Any]]:
    """Open a temporary neighbour of ``path`` that takes its place when the block succeeds and vanishes when it fails.

    Args:
        path: the file.
        mode: of the handle.
        durable: have the content on the disk before it takes the place: then a power cut can't empty the file either.

    Raises:
        UserError: the disk is full or the place is not writable, or a folder.
    """
    check_file(path)
    temporary = beside(path)
    make_folder(path.parent)
    try:
        with writing(path), temporary.open(mode, encoding=None if "b" in mode else "utf-8") as handle:
            yield handle
            if durable:
                handle.flush()
                os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_file(path: Path) -> None:
    """Raise a ``UserError`` where a folder stands in the place of a file that is to be written."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file, e.g. in it")


def beside(path: Path) -> Path:
    """A name for what is to take the place of ``path``; tells whose it is, so that :func:`alone` can sweep it up."""
    return path.with_name(f".{path.name}.{os.uname().nodename}-{os.getpid()}.tmp")


def sweep(folder: Path, *, below: bool = True) -> None:
    """Remove what killed processes of this machine left: files, and folders that :func:`beside` named.

    Args:
        folder: where.
        below: in the folders below it, too.
    """
    for path in list(folder.rglob(".*.tmp") if below else folder.glob(".*.tmp")):
        host, _, process = path.name[: -len(".tmp")].rpartition("-")
        if host.endswith(f".{os.uname().nodename}") and process.isdigit() and not runs(int(process)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def staging(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` that vanishes at the end of the block; a killed process's is swept up by the next.

    Args:
        path: gives the folder its name; its parent must be there.
    """
    sweep(path.parent)
    folder = beside(path)
    make_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def alone(folder: Path, seconds: float = 5.0) -> Iterator[None]:
    """Hold a folder for this process, so that no second run writes into it; the system lets go when the process dies.

    Args:
        folder: made where it is missing; ``.lock`` in it says who holds it.
        seconds: how long to wait: the children of a run that was killed need a moment to notice.

    Raises:
        UserError: another process holds it.
    """
    make_folder(folder)
    path = folder / ".lock"
    with writing(path):
        handle = path.open("a+")
    # a lock of the process, not of the file handle: the forks of a run, such as its data loaders, don't hold it
    with handle:
        patience = time.monotonic() + seconds
        while not _locked(handle):
            if time.monotonic() > patience:
                handle.seek(0)
                raise UserError(
                    f"{folder}: another run writes here ({handle.read().strip() or 'unknown'}); wait for it, stop it, "
                    "or choose another folder"
                )
            time.sleep(0.2)
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        handle.flush()
        sweep(folder)
        yield


def require_free(folder: Path, seconds: float = 5.0) -> None:
    """Check that no process holds a folder by :func:`alone`; one that was never held is left as it is.

    Raises:
        UserError: one does, still after so many ``seconds``.
    """
    if (folder / ".lock").is_file():
        with alone(folder, seconds):
            pass


def _locked(handle: IO[str]) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        # this file system knows no locks: then the folder can't be held, as it never could
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return True


def make_folder(path: Path) -> None:
    """Make a folder and its parents where they are missing.

    Raises:
        UserError: the disk is full or the place is not writable.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file of ``key: value`` lines, such as a configuration of ESPnet's; an empty one gives no keys.

    It is read by libyaml where PyYAML has it, ten times as fast; plain values only, no objects.

    Raises:
        UserError: the file is missing, no YAML, or holds something else.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=loader)  # noqa: S506 - one of the safe ones
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: give another, or make it again") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or no such day or number
        raise UserError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: no `key: value` lines: give a configuration of ESPnet's")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path`` as :func:`write_text` does."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to a temporary name, then move it into place, so that no reader ever sees half a file.

    A file that already holds this text stays untouched: what was made from it need not be made again.
    """
    path = Path(path)
    if path.is_file() and path.read_bytes() == text.encode("utf-8"):
        return
    with replacing(path) as handle:
        handle.write(text)


def install(source: str | Path, target: str | Path) -> None:
    """Move every file below ``source`` to the same place below ``target``; files that don't differ stay untouched."""
    source, target = Path(source), Path(target)
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        if not (place.is_file() and filecmp.cmp(path, place, shallow=False)):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
    shutil.rmtree(source)
