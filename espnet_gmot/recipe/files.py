"""Small file habits shared by the recipe: atomic writes and marks that let a rerun skip finished work."""

import contextlib
import errno
import filecmp
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from espnet_gmot.errors import UserError

MARK = ".complete"
"""Name of the mark that finished work leaves behind."""
_SMALL = 64 << 20


@contextlib.contextmanager
def explained_disk_errors() -> Iterator[None]:
    """Turn a full or read-only disk into a UserError; other OSErrors are defects and stay as they are."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "no space left on the disk; make room, then run the same command to continue",
            errno.EDQUOT: "your disk quota is used up; make room, then run the same command to continue",
            errno.EACCES: "permission denied; choose a folder that you may write",
            errno.EROFS: "the disk is read-only; choose a folder that you may write",
        }
        if error.errno not in advice:
            raise
        raise UserError(f"{error.filename or 'output'}: {advice[error.errno]}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to a temporary name, then move it into place, so that no reader ever sees half a file.

    A file that already holds this text stays untouched: what was made from it need not be made again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_bytes() == text.encode("utf-8"):
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def install(source: str | Path, target: str | Path) -> None:
    """Move every file below ``source`` to the same place below ``target``; files that don't differ stay untouched."""
    source, target = Path(source), Path(target)
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        if not (place.is_file() and filecmp.cmp(path, place, shallow=False)):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
    shutil.rmtree(source)


def count_lines(path: str | Path) -> int:
    """Number of lines that hold anything."""
    with Path(path).open(encoding="utf-8") as lines:
        return sum(1 for line in lines if line.strip())


def fingerprint(words: Iterable[str], inputs: Iterable[str | Path] = (), *, contents: bool = False) -> str:
    """Hash of a command and of the state of the files that it reads.

    Args:
        words: the command.
        inputs: files.
        contents: hash what files of up to 64 MB hold, so that one written again with the same content counts as the
            same; otherwise, and for larger files, size and modification time stand for the content.

    Raises:
        UserError: one of the files is absent.
    """
    digest = hashlib.sha256("\0".join(words).encode())
    for path in inputs:
        try:
            state = os.stat(path)
            known = Path(path).read_bytes() if contents and state.st_size <= _SMALL else str(state.st_mtime_ns).encode()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; the earlier stages name this file: run them again") from error
        digest.update(f"\0{path}\0{state.st_size}\0".encode() + known)
    return digest.hexdigest()


def is_complete(directory: str | Path, mark: str) -> bool:
    """Whether ``directory`` holds finished work with this fingerprint."""
    return _mark(directory)[0] == mark


def made_by(directory: str | Path) -> str:
    """The versions that finished the work in ``directory``, as :func:`set_complete` was told."""
    return _mark(directory)[1] or "another version"


def set_complete(directory: str | Path, mark: str, versions: str = "") -> None:
    """Leave the mark that :func:`is_complete` and :func:`made_by` read."""
    write_text(Path(directory) / MARK, f"{mark}\n{versions}\n")


def _mark(directory: str | Path) -> tuple[str, str]:
    """Fingerprint and versions; empty where nothing is finished or nobody noted them."""
    path = Path(directory) / MARK
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    mark, versions, *_ = [*lines, "", ""]
    return mark.strip(), versions.strip()
