"""Downloads against a server on this machine: resumed, verified, explained."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from espnet_gmot.corpora.aishell import fetch, main
from espnet_gmot.corpora.download import download
from espnet_gmot.errors import UserError
from tests.recipe.corpus import write_corpus

DATA = bytes(range(256)) * 2000
MD5 = hashlib.md5(DATA).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.data``; hangs up after ``server.limit`` bytes; honours ranges if ``server.ranges``."""

    def do_GET(self) -> None:
        data, start = self.server.data, 0
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path != "/data_aishell.tgz":
            self.send_error(404)
            return
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : start + self.server.limit])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.data, made.limit, made.ranges, made.asked = DATA, len(DATA), True, []
    made.url = f"http://127.0.0.1:{made.server_port}/data_aishell.tgz"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def test_plain(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    path = download(server.url, tmp_path / "x.tgz", size=len(DATA), md5=MD5)
    assert path.read_bytes() == DATA
    download(server.url, path, size=len(DATA), md5=MD5)
    assert server.asked == [None]  # nothing is fetched twice


def test_resumes_by_range_after_a_dropped_connection(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    server.limit = 200_000
    assert download(server.url, tmp_path / "x.tgz", size=len(DATA), md5=MD5).read_bytes() == DATA
    assert server.asked == [None, "bytes=200000-", "bytes=400000-"]


def test_continues_an_earlier_run(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    (tmp_path / "x.tgz.part").write_bytes(DATA[:1000])
    assert download(server.url, tmp_path / "x.tgz").read_bytes() == DATA
    assert server.asked == ["bytes=1000-"]


def test_starts_over_where_the_server_knows_no_ranges(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "x.tgz.part").write_bytes(b"other" * 1000)
    assert download(server.url, tmp_path / "x.tgz", md5=MD5).read_bytes() == DATA


def test_bad_checksum_and_size(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"MD5 is {MD5}, expected 0000"):
        download(server.url, tmp_path / "x.tgz", md5="0000")
    assert not (tmp_path / "x.tgz").exists()
    with pytest.raises(UserError, match=f"announces {len(DATA)} bytes, expected 7"):
        download(server.url, tmp_path / "y.tgz", size=7)


def test_unreachable_and_absent(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="404"):
        download(server.url + "x", tmp_path / "x.tgz")
    with pytest.raises(UserError, match="rerun the same command to continue"):
        download("http://127.0.0.1:9/data_aishell.tgz", tmp_path / "x.tgz")
    with pytest.raises(UserError, match="check --data_url"):
        download("data_aishell.tgz", tmp_path / "x.tgz")


def test_prepare_data_from_a_url(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    server.data = write_corpus(tmp_path, {"train": 1, "dev": 1, "test": 1}).read_bytes()
    server.limit = len(server.data)
    main(["--data", "corpus", "--data_url", server.url])
    assert (tmp_path / "corpus/data_aishell/.complete").exists()
    assert "train 2, dev 2, test 2" in capsys.readouterr().out
    (tmp_path / "corpus/data_aishell.tgz").unlink()
    fetch(server.url, tmp_path / "corpus", None, None)
    assert len(server.asked) == 1  # the unpacked corpus is enough
