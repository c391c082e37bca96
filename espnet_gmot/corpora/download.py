"""A resumable, verified HTTP download."""

import errno
import hashlib
import os
import shutil
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from tqdm import tqdm

from espnet_gmot.errors import UserError

_CHUNK = 1 << 20
_ATTEMPTS = 5


def download(url: str, path: str | Path, *, size: int | None = None, md5: str | None = None) -> Path:
    """Fetch ``url`` into ``path`` with a progress bar; an interrupted download continues where it stopped.

    The bytes go to ``path.part`` and move to ``path`` only once size and checksum are right.

    Args:
        url: an http(s) address.
        path: file to write. If it is there with the right size and checksum, nothing is fetched.
        size: expected length in bytes; None accepts what the server announces.
        md5: expected MD5 in hexadecimal; None skips the check.

    Returns:
        ``path``.

    Raises:
        UserError: unreachable server, wrong size or checksum, no space left.
    """
    path = Path(path)
    verified = path.with_name(path.name + ".md5")
    if path.is_file():
        if verified.is_file() and md5 and verified.read_text().split()[0] == md5:
            return path
        _verify(path, url, size, md5)
    else:
        part = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch_all(url, part, size)
        _verify(part, url, size, md5)
        os.replace(part, path)
    if md5:
        verified.write_text(f"{md5}  {path.name}\n")
    return path


def _fetch_all(url: str, part: Path, size: int | None) -> None:
    """Fetch until complete; every attempt that brings new bytes renews the patience."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _fetch(url, part, size):
                return
            problem = "the connection closed early"
        except urllib.error.HTTPError as error:
            raise UserError(f"{url}: the server answers {error.code} {error.reason}; check --data_url") from error
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        except ValueError as error:
            raise UserError(f"{url}: not an http(s) address ({error}); check --data_url") from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise UserError(f"{part}: no space left on the disk; make room, then rerun to continue") from error
            raise
        grown = part.exists() and part.stat().st_size > before
        failures = 0 if grown else failures + 1
        if failures >= _ATTEMPTS:
            raise UserError(f"{url}: {problem} ({_ATTEMPTS} attempts); rerun the same command to continue the download")


def _fetch(url: str, part: Path, size: int | None) -> bool:
    """One attempt, from where ``part`` ends; True when every announced byte is there."""
    start = part.stat().st_size if part.exists() else 0
    if size is not None and start == size:
        return True
    if not url.startswith(("https://", "http://")):  # urllib reads file: and ftp: too
        raise ValueError("it must begin with https:// or http://")
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
    try:
        response = urllib.request.urlopen(request, timeout=60)  # noqa: S310 - checked above
    except urllib.error.HTTPError as error:
        if error.code == 416 and size is None:  # nothing behind the last byte: it is all there
            return True
        if error.code == 416:
            part.unlink()
            return False
        raise
    with response:
        start = start if response.status == 206 else 0  # 200: the server ignores ranges and sends everything
        total = _total(response, start)
        if size is not None and total is not None and total != size:
            raise UserError(f"{url}: the server announces {total} bytes, expected {size}; check --data_url")
        _require_space(part, (total or size or start) - start)
        received = _copy(response, part, start, total or size)
    return total is None or received == total


def _total(response: HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return None if length is None else start + int(length)


def _copy(response: HTTPResponse, part: Path, start: int, total: int | None) -> int:
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=f"download {part.stem}", mininterval=1.0)
    with bar, part.open("r+b" if start else "wb") as output:
        output.seek(start)
        output.truncate()
        while chunk := response.read1(_CHUNK):
            output.write(chunk)
            bar.update(len(chunk))
        return output.tell()


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise UserError(
            f"{part.parent}: the download needs {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; make room"
        )


def _verify(path: Path, url: str, size: int | None, md5: str | None) -> None:
    actual = path.stat().st_size
    if size is not None and actual != size:
        raise UserError(f"{path}: {actual} bytes, {url} should have {size}; delete it and rerun")
    if md5 is None:
        return
    digest = hashlib.md5(usedforsecurity=False)
    with (
        path.open("rb") as stream,
        tqdm(total=actual, unit="B", unit_scale=True, desc="verify md5", mininterval=1.0) as bar,
    ):
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != md5:
        raise UserError(
            f"{path}: MD5 is {digest.hexdigest()}, expected {md5}; the download is damaged: delete it and rerun"
        )
