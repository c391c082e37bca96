"""Marks that finished work leaves behind, so that a rerun skips it: what it was made from, and by which versions."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text

MARK = ".complete"
"""Name of the mark that finished work leaves behind."""
_SMALL = 64 << 20


def digest_of(words: Iterable[str], inputs: Iterable[str | Path] = (), *, contents: bool = False) -> str:
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
    """Whether ``directory`` holds finished work with this fingerprint.

    A fingerprint's second word says which features went in. Marks from before it was noted have the first one alone:
    their work counts, for nobody knows better.
    """
    there = _mark(directory)[0]
    return there in (mark, mark.partition(" ")[0])


def of_other_features(directory: str | Path, mark: str) -> bool:
    """Whether ``directory`` holds finished work of the same command on features that were replaced since."""
    there = _mark(directory)[0].split()
    return len(there) == 2 and there != mark.split() and there[0] == mark.partition(" ")[0]


def renew(directory: str | Path, mark: str) -> None:
    """Complete the mark of finished work (:func:`is_complete`) that is from before features were noted."""
    there, versions = _mark(directory)
    if there != mark:
        set_complete(directory, mark, versions)


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
