"""Headless Chromium, driven over the WebDriver protocol by the standard library."""

import base64
import io
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 120  # seconds; a loaded machine takes its time to start a browser
WORDS = "return document.body.innerText"


def missing() -> str | None:
    """The programs that a test in the browser lacks here."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return (
        f"{' and '.join(absent)} not installed (Debian: apt-get install chromium chromium-driver)"
        if absent
        else None
    )


class Browser:
    """One browser with one page."""

    def __init__(self, port: int, profile: Path) -> None:
        self._root = f"http://127.0.0.1:{port}"
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._root += f"/session/{session['sessionId']}"

    def open(self, page: Path | str) -> None:
        """Load a file from disk or an address, with all its pictures."""
        url = page if isinstance(page, str) else page.resolve().as_uri()
        self._call("POST", "/url", {"url": url})

    def click(self, css: str) -> None:
        """Click what a reader could click: it has to be in sight, with nothing over it."""
        self._call("POST", f"{self._element(css)}/click", {})

    def send_keys(self, css: str, text: str) -> None:
        """Type, or give files to an `<input type=file>`, one path a line."""
        self._call("POST", f"{self._element(css)}/value", {"text": text})

    def ask(self, script: str) -> Any:
        """What a JavaScript function body returns on the page."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def wait(self, script: str) -> None:
        """Until a JavaScript expression holds on the page."""
        end = time.monotonic() + PATIENCE
        while not self.ask(f"return Boolean({script})"):
            assert time.monotonic() < end, f"{script} did not come true; the page says: {self.ask(WORDS)}"
            time.sleep(0.05)

    def screenshot(self) -> Image.Image:
        """The window as it looks now."""
        png = base64.b64decode(self._call("GET", "/screenshot", None))
        return Image.open(io.BytesIO(png)).convert("RGB")

    def tell(self, command: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools Protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def console(self) -> list[str]:
        """What the page has written to the console since the last call."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def close(self) -> None:
        """End the browser."""
        self._call("DELETE", "", None)

    def _element(self, css: str) -> str:
        found = self._call("POST", "/element", {"using": "css selector", "value": css})
        return f"/element/{next(iter(found.values()))}"

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._root + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from error


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile lies in `folder`; it ends with the block."""
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        started = next(line for line in driver.stdout if "started successfully on port" in line)
        page = Browser(int(started.rstrip().rstrip(".").rsplit(" ", 1)[1]), folder)
        yield page
        page.close()
    finally:
        driver.terminate()
        driver.wait()
        driver.stdout.close()
