"""AISHELL-1's distribution form: a tgz with one inner tar.gz per speaker, unpacked safely and resumably.

Other tar archives of the same tree are read too: plain, compressed by bzip2 or xz, with members that begin with ``./``,
or of what lies inside ``data_aishell``. `tarfile.data_filter` is not used: it keeps links and mends absolute paths,
where a corpus has neither.
"""

import errno
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from tqdm import tqdm

from espnet_gmot.errors import UserError
from espnet_gmot.marks import MARK, digest_of, is_complete, set_complete

_OTHERS = {
    b"PK\x03\x04": "a zip archive; unzip it and give the folder",
    b"7z\xbc\xaf": "a 7z archive; unpack it and give the folder",
    b"Rar!": "a rar archive; unpack it and give the folder",
    b"<": "a web page, not an archive; fetch it again",
    b"version https://git-lfs": "a Git-LFS pointer, not the archive; run git lfs pull",
}
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
CORPUS = "data_aishell"
"""Folder at the root of the archive."""
_BEGUN = ".unpacked"  # folder in a corpus that is being unpacked, with a file for each finished speaker
_INNER = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")
_MOST_MEMBERS, _MOST_RATIO, _SMALL = 2_000_000, 20, 1 << 30  # bounds for bombs; AISHELL-1: 142,000 members, ratio 1.2
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
    begun = corpus / _BEGUN / ".archive"
    try:
        _require_space(archive, corpus)
        if begun.is_file() and begun.read_text() != mark:
            print(f"{corpus}: half unpacked from another archive than {archive}: starting anew", flush=True)
            shutil.rmtree(corpus)
        corpus.mkdir(parents=True, exist_ok=True)
        with archive.open("rb") as stream, _Progress(stream, archive) as counted:
            _unpack_outer(cast(IO[bytes], counted), archive, corpus, begun, mark)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise _explain(error, archive, corpus) from error
    set_complete(corpus, mark)
    shutil.rmtree(corpus / _BEGUN, ignore_errors=True)
    return corpus


def is_half(corpus: Path) -> bool:
    """Whether an unpacking into this folder was interrupted."""
    return (corpus / _BEGUN).is_dir() and not (corpus / MARK).is_file()


class _Member(tarfile.TarInfo):
    """Notes whether an archive's end mark was seen: `tarfile` takes a stream that was cut between members for whole."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        """Read the next member's header."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # not documented, in every Python
            archive.ended = True  # type: ignore[attr-defined]  # ours
            raise


class _Budget:
    """What an archive may hold in all, its inner archives included: anything beyond is no corpus but a bomb."""

    def __init__(self, archive: Path) -> None:
        self._archive, self._members = archive, _MOST_MEMBERS
        self._bytes = _SMALL + _MOST_RATIO * archive.stat().st_size

    def members(self, archive: tarfile.TarFile, name: str) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
        """Files of an archive with their checked paths; folders and macOS's sidecars are passed over.

        Raises:
            UserError: a member is unsafe, or the archive holds too much.
        """
        for member in archive:
            self._members -= 1
            self._bytes -= member.size
            if self._members < 0 or self._bytes < 0:
                raise UserError(
                    f"{self._archive}: holds more than {_MOST_MEMBERS} members or {_MOST_RATIO} times its own size; "
                    "this is no corpus: nothing more of it was unpacked"
                )
            path = _safe(member, name)
            if not member.isdir() and not path.name.startswith("._"):
                yield member, path
        if not getattr(archive, "ended", False):
            raise EOFError(f"{name} ends without its end mark")


def _opened(stream: IO[bytes] | None) -> tarfile.TarFile:
    """A stream of tar, packed or not."""
    try:
        return tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Member)
    except TypeError as error:  # tarfile's own, where gzip's header is cut
        raise tarfile.ReadError("its header is cut") from error


def _unpack_outer(stream: IO[bytes], archive: Path, corpus: Path, begun: Path, mark: str) -> None:
    budget = _Budget(archive)
    with _opened(stream) as outer:
        for member, path in budget.members(outer, str(archive)):
            if path.parts[0] == CORPUS:
                path = path.relative_to(CORPUS)
            elif path.parts[0] not in ("wav", "transcript"):
                raise UserError(
                    f"{archive}: member {member.name!r} is not below {CORPUS}/; is this AISHELL-1's archive?"
                )
            if not begun.is_file():
                begun.parent.mkdir(exist_ok=True)
                begun.write_text(mark)
            if not path.name.endswith(_INNER):
                _write(outer, member, corpus / path)
                continue
            done = corpus / _BEGUN / "_".join((CORPUS, *path.parts))
            if not done.exists():
                _unpack_inner(outer, member, f"{archive}:{path.name}", corpus / path.parent, budget)
                done.touch()


def _unpack_inner(outer: tarfile.TarFile, member: tarfile.TarInfo, name: str, folder: Path, budget: _Budget) -> None:
    with _opened(outer.extractfile(member)) as inner:
        for item, path in budget.members(inner, name):
            _write(inner, item, folder / path)


def _safe(member: tarfile.TarInfo, archive: str | Path) -> PurePosixPath:
    path = PurePosixPath(member.name)
    inside = path.parts or member.isdir()  # "." itself is a folder's name
    if path.is_absolute() or ".." in path.parts or not inside or "\0" in member.name:
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
        content = source.extractfile(member)
        assert content is not None, "a regular file"
        shutil.copyfileobj(content, output, 1 << 20)
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
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        if error.filename is not None and Path(error.filename) == archive:
            return UserError(f"{archive}: cannot be read ({error.strerror}); mend its permissions, or give another")
        return UserError(
            f"{error.filename or corpus}: cannot be written ({error.strerror}); give another --unpack_to (run.sh: "
            '--local_data_opts "--unpack_to FOLDER")'
        )
    with archive.open("rb") as stream:
        head = stream.read(265)
    for magic, kind in _OTHERS.items():
        if head.lstrip().startswith(magic):
            return UserError(f"{archive}: {kind}")
    if head.startswith(_COMPRESSED) or head[257:262] == b"ustar":
        size = archive.stat().st_size
        return UserError(
            f"{archive}: cut short or damaged, {size} bytes are there, or no tar in it ({error}); fetch it again, then "
            "rerun to continue"
        )
    return UserError(f"{archive}: not a tar archive; give {CORPUS}.tgz, or the folder that it was unpacked to")


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
