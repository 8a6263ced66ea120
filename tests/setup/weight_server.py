"""An HTTP server on this machine that serves one file, well or badly, and remembers what it was asked for."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!doctype html><html><body>log in</body></html>"
CDN = "/cdn/file?Signature=hidden"


class WeightServer(ThreadingHTTPServer):
    """Serves `content` at any path, in the next of the ways in `faults`, or well when there are none left.

    A way is "break" (half of what is asked for, then the connection ends), "page", "other" (another file of
    the same size), "plain" (no ranges), "shift" (a piece that was not asked for), "unasked" (all as a piece),
    "slow", "stall", "chunked", "redirect", or a status.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.faults: list[str | int] = []
        self.requests: list[tuple[str, str, str | None]] = []
        self.etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self.status = 302  # of the hub's answer to what it knows of the file
        self.stalled = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self) -> list[str | None]:
        return [asked for method, _, asked in self.requests if method == "GET"]

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    server: WeightServer

    def do_HEAD(self) -> None:
        self._note()
        self._head(self.server.status, {"Location": f"http://localhost:{self.server.server_port}{CDN}"})

    def do_GET(self) -> None:
        self._note()
        fault = self.server.faults.pop(0) if self.server.faults else ""
        content = self.server.content
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if isinstance(fault, int):
            self._answer(fault, {}, b"no")
        elif fault == "page":
            self._answer(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE)
        elif fault == "redirect":
            self._answer(302, {"Location": f"{self.server.address}{CDN}"}, b"")
        elif fault == "other":
            self._answer(200, {}, bytes(255 - byte for byte in content))
        elif fault == "chunked":
            self._chunked(content)
        elif fault == "plain" or (not asked and fault != "unasked"):
            self._answer(200, {}, content, fault)
        elif start >= len(content):
            self._answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
        else:
            told = start + 1 if fault == "shift" else start
            piece = {"Content-Range": f"bytes {told}-{len(content) - 1}/{len(content)}"}
            self._answer(206, piece, content[start:], fault)

    def _note(self) -> None:
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("X-Linked-Etag", self.server.etag)
        self.send_header("X-Linked-Size", str(len(self.server.content)))
        self.send_header("X-Repo-Commit", "c" * 40)
        self.end_headers()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, fault: str | int = "") -> None:
        told = {"Content-Type": "application/octet-stream", "Content-Length": str(len(body))}
        self._head(status, told | headers)
        if fault == "break":
            self.wfile.write(body[: len(body) // 2])
        elif fault == "slow":
            for begin in range(0, len(body), len(body) // 4 + 1):
                self.wfile.write(body[begin : begin + len(body) // 4 + 1])
                self.wfile.flush()
                time.sleep(0.02)
        elif fault == "stall":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.server.stalled.wait()
        else:
            self.wfile.write(body)

    def _chunked(self, body: bytes) -> None:
        """A chunk that is cut off: no size of the whole is told."""
        self.protocol_version = "HTTP/1.1"
        self._head(200, {"Transfer-Encoding": "chunked", "Connection": "close"})
        self.wfile.write(b"%x\r\n" % len(body) + body[: len(body) // 2])
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def serve(content: bytes) -> Iterator[WeightServer]:
    server = WeightServer(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stalled.set()
        server.shutdown()
        thread.join()
        server.server_close()
