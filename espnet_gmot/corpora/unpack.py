"""AISHELL-1's distribution form: a tgz with one inner tar.gz per speaker, unpacked safely and resumably."""

import errno
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from espnet_gmot.errors import UserError
from espnet_gmot.marks import MARK, digest_of, is_complete, set_complete

CORPUS = "data_aishell"
"""Folder at the root of the archive."""
_GROWTH = 1.25  # unpacked bytes per packed byte, with a margin; AISHELL-1 itself: 15.6 GB packed, 18 GB unpacked


def unpack(archive: str | Path, target: str | Path) -> Path:
    """Unpack ``archive`` (data_aishell.tgz) below ``target``; a rerun continues after the last finished speaker.

    Inner archives are read straight out of the outer one and never stored. Every member is checked before anything
    of it is written.

    Args:
        archive: the outer tgz.
        target: folder that receives ``data_aishell/``.

    Returns:
        ``target/data_aishell``.

    Raises:
        UserError: unreadable or unsafe archive, an earlier extraction of another one, or no space left.
    """
    archive, corpus = Path(archive), Path(target) / CORPUS
    mark = digest_of([archive.name], [archive])
    done = corpus / MARK
    if done.is_file():
        # ESPnet's own download script leaves an empty mark
        if done.stat().st_size == 0 or is_complete(corpus, mark):
            return corpus
        raise UserError(
            f"{corpus}: unpacked from another archive than {archive}; delete it or give another --unpack_to"
        )
    _require_space(archive, corpus)
    begun = corpus / ".unpacked" / ".archive"
    if begun.is_file() and begun.read_text() != mark:
        print(f"{corpus}: half unpacked from another archive than {archive}: starting anew", flush=True)
        shutil.rmtree(corpus)
    corpus.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open("rb") as stream, _Progress(stream, archive) as counted:
            _unpack_outer(counted, archive, corpus, begun, mark)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise _explain(error, archive, corpus) from error
    set_complete(corpus, mark)
    shutil.rmtree(corpus / ".unpacked", ignore_errors=True)
    return corpus


def _unpack_outer(stream: IO[bytes], archive: Path, corpus: Path, begun: Path, mark: str) -> None:
    with tarfile.open(fileobj=stream, mode="r|gz") as outer:
        for member in outer:
            path = _safe(member, archive)
            if path.parts[0] != CORPUS:
                raise UserError(
                    f"{archive}: member {member.name!r} is not below {CORPUS}/; is this AISHELL-1's archive?"
                )
            if member.isdir():
                continue
            if not begun.is_file():
                begun.parent.mkdir(exist_ok=True)
                begun.write_text(mark)
            if not path.name.endswith((".tar.gz", ".tgz")):
                _write(outer, member, corpus / path.relative_to(CORPUS))
                continue
            done = corpus / ".unpacked" / "_".join(path.parts)
            if not done.exists():
                _unpack_inner(outer, member, f"{archive}:{path.name}", corpus / path.relative_to(CORPUS).parent)
                done.touch()


def _unpack_inner(outer: tarfile.TarFile, member: tarfile.TarInfo, name: str, folder: Path) -> None:
    with tarfile.open(fileobj=outer.extractfile(member), mode="r|gz") as inner:
        for item in inner:
            path = _safe(item, name)
            if item.isfile():
                _write(inner, item, folder / path)


def _safe(member: tarfile.TarInfo, archive: str | Path) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in member.name:
        raise UserError(
            f"{archive}: member {member.name!r} would be written outside its folder; nothing of it was unpacked"
        )
    if not (member.isfile() or member.isdir()):
        raise UserError(f"{archive}: member {member.name!r} is a link or a device; only files and folders are unpacked")
    return path


def _write(source: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if path.is_file() and path.stat().st_size == member.size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as output:
        shutil.copyfileobj(source.extractfile(member), output, 1 << 20)
    os.replace(temporary, path)


def _require_space(archive: Path, corpus: Path) -> None:
    corpus.parent.mkdir(parents=True, exist_ok=True)
    needed = archive.stat().st_size * _GROWTH
    if corpus.is_dir():
        needed -= sum(path.stat().st_size for path in corpus.rglob("*.wav"))
    free = shutil.disk_usage(corpus.parent).free
    if free < needed:
        raise UserError(
            f"{corpus.parent}: {archive.name} needs {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free: "
            "make room or give another --unpack_to"
        )


def _explain(error: Exception, archive: Path, corpus: Path) -> UserError:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return UserError(f"{corpus}: no space left on the disk; make room, then run the same command to continue")
    if isinstance(error, PermissionError):
        return UserError(f"{error.filename or corpus}: permission denied; give another --unpack_to")
    return UserError(
        f"{archive}: not a readable tgz ({error}); it may be truncated: fetch it again, then rerun to continue"
    )


class _Progress:
    """A readable stream that moves a progress bar by the packed bytes read."""

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self._stream = stream
        size = archive.stat().st_size
        self._bar = tqdm(total=size, unit="B", unit_scale=True, desc=f"unpack {archive.name}", mininterval=1.0)

    def read(self, size: int = -1) -> bytes:
        """Read as the stream does."""
        data = self._stream.read(size)
        self._bar.update(len(data))
        return data

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
