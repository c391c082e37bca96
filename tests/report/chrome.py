"""A headless Chromium, driven by ChromeDriver's own protocol: JSON over HTTP."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Chrome:
    """One browser; use it as a context manager. It skips the test, saying so, where there is none.

    Args:
        profile: an empty folder for the browser's profile.
    """

    def __init__(self, profile: Path) -> None:
        driver = shutil.which("chromedriver")
        browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if driver is None or browser is None:
            pytest.skip("no chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._base = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        options = {"binary": browser, "args": [*_FLAGS, f"--user-data-dir={profile}"]}
        logs = {"browser": "ALL", "performance": "ALL"}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs}
        for attempt in range(100):
            try:
                started = self._call("/session", {"capabilities": {"alwaysMatch": wanted}})
                break
            except urllib.error.HTTPError as error:
                self._process.kill()
                raise RuntimeError(error.read().decode()) from error
            except OSError:
                if attempt == 99:
                    raise
                time.sleep(0.1)
        self._session = f"/session/{started['sessionId']}"

    def __enter__(self) -> "Chrome":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            request = urllib.request.Request(self._base + self._session, method="DELETE")
            urllib.request.urlopen(request, timeout=20).read()
        finally:
            self._process.terminate()
            self._process.wait(20)

    def _call(self, path: str, content: dict[str, Any]) -> Any:
        request = urllib.request.Request(self._base + path, json.dumps(content).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, address: str) -> None:
        """Load a page."""
        self._call(f"{self._session}/url", {"url": address})

    def run(self, script: str) -> Any:
        """The value that a script returns."""
        return self._call(f"{self._session}/execute/sync", {"script": script, "args": []})

    def cdp(self, command: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self._call(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What the ``browser`` (console) or ``performance`` log has gathered."""
        return self._call(f"{self._session}/se/log", {"type": kind})

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
