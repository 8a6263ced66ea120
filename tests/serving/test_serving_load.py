"""The service on loopback, with all that only a network shows: many at once, and clients that misbehave."""

import asyncio
import contextlib
import io
import logging
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from starlette.types import ASGIApp
from uvicorn import Server

from benchmarks.serving import ask_all, bad_asks, compare, plan, resident_mb, summarize
from src.deploy import Detector, Result
from src.serving import Limits, Service, build_app, serve
from src.serving.server import http_server
from tests.serving.conftest import LIMITS, Means, Stuck, picture


class Loopback:
    """An application at a port of this machine, in a thread."""

    def __init__(self, app: ASGIApp) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = http_server(app, 60)
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def is_open(self) -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        return False

    def raw(self, request: bytes) -> bytes:
        """All that is answered to these bytes until the server hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(request)
            pieces = []
            while piece := connection.recv(65536):
                pieces.append(piece)
            return b"".join(pieces)


@pytest.fixture
def loopback(request: pytest.FixtureRequest) -> Iterator[Loopback]:
    limits: Limits = getattr(request, "param", LIMITS)
    made = Loopback(build_app(Service(Means(), "means", limits)))
    yield made
    made.close()


@pytest.fixture
def files() -> list[bytes]:
    return [picture(red, "JPEG") for red in range(0, 250, 25)]


def results_of(files: list[bytes]) -> list[Result]:
    found = Detector(Means())([Image.open(io.BytesIO(data)) for data in files])
    return list(found)


@pytest.mark.parametrize("loopback", [LIMITS._replace(max_waiting=64)], indirect=True)
def test_load_with_bad_requests_is_answered_without_a_loss(loopback: Loopback, files: list[bytes]) -> None:
    asks = plan(files, 100, bad_asks(files[0], body_bytes=3_000_000, bomb_side=300), 0.2)
    found = summarize(asyncio.run(ask_all(loopback.url, asks, 8)), results_of(files), 0.4)
    assert sum(row["requests"] for row in found["kinds"].values()) == 100
    for kind, row in found["kinds"].items():
        assert row["statuses"] == {row["expected"]: row["requests"]}, kind
        assert row["expected"] == 200 or all(row["reasons"]), kind
    assert len(found["kinds"]) == 7
    assert found["differences"]["unmatched"] == 0
    assert max(found["differences"]["score"], found["differences"]["box_px"]) <= 1e-4


def test_comparison_sees_an_answer_that_is_another_pictures(loopback: Loopback, files: list[bytes]) -> None:
    first, last = results_of([files[0], files[-1]])
    (reply,) = asyncio.run(ask_all(loopback.url, plan(files[:1], 2, [], 0)[1:], 1))
    assert compare(reply.body, [first], 0.4) == (0, 0, 0)
    assert compare(reply.body, [last], 0.4) != (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("loopback", [Limits()], indirect=True)
def test_memory_is_flat_under_load(loopback: Loopback, files: list[bytes]) -> None:
    bad = bad_asks(files[0])
    asyncio.run(ask_all(loopback.url, plan(files, 200, bad, 0.1), 32))
    before = resident_mb(int(Path("/proc/self").readlink().name))
    replies = asyncio.run(ask_all(loopback.url, plan(files, 2000, bad, 0.1), 32))
    assert summarize(replies, results_of(files), 0.4)["wrong"] == 0
    assert resident_mb(int(Path("/proc/self").readlink().name)) < before + 100


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"


def test_body_in_chunks_that_never_ends_is_refused(loopback: Loopback) -> None:
    chunk = b"%x\r\n" % 100_000 + bytes(100_000) + b"\r\n"
    answer = loopback.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 10 + b"0\r\n\r\n" + CLOSING)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than the 300,000 bytes" in answer


def test_client_that_asks_before_it_sends_is_told_not_to(loopback: Loopback) -> None:
    answer = loopback.raw(HEAD + b"Expect: 100-continue\r\nContent-Length: 50000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert re.search(rb"(?i)connection: close", answer)


@pytest.mark.parametrize("loopback", [LIMITS._replace(timeout_s=0.5)], indirect=True)
def test_body_that_stops_coming_is_given_up(loopback: Loopback) -> None:
    answer = loopback.raw(HEAD + b"Content-Length: 1000\r\n\r\nhalf of it")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"within the 0.5 s" in answer


CLOSING = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_connection_is_used_again_after_a_refusal_that_was_read_whole(loopback: Loopback) -> None:
    answer = loopback.raw(HEAD + b"Content-Length: 4\r\n\r\nfour" + CLOSING)
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b'{"status":"ok","waiting":0}' in answer


def test_request_that_has_begun_is_answered_before_the_end(files: list[bytes]) -> None:
    runtime = Stuck()
    service = Service(runtime, "stuck", LIMITS)
    made = Loopback(build_app(service))
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(asyncio.run, ask_all(made.url, plan(files, 1, [], 0), 1))
        while service.waiting == 0:
            time.sleep(0.01)
        ending = pool.submit(made.close)
        while made.is_open():
            time.sleep(0.01)
        runtime.go.set()
        assert [one.status for one in reply.result()] == [200]
        ending.result()


def test_address_beyond_this_machine_without_a_token_is_warned_of(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Server, "run", lambda *_, **__: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    app = build_app(service)
    for host, is_guarded, warned in (("0.0.0.0", False, 1), ("0.0.0.0", True, 1), ("127.0.0.1", False, 1)):
        serve(app, host, 0, timeout_s=1, is_guarded=is_guarded)
        told = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert len(told) == warned
    assert not logging.getLogger("python_multipart.multipart").isEnabledFor(logging.WARNING)
    assert told == ["0.0.0.0 can be reached from other machines, and no token is asked for"]


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_number_that_is_no_port_is_refused(port: int, service: Service) -> None:
    with pytest.raises(ValueError, match=f"--port {port} was asked for, allowed are 0"):
        serve(build_app(service), "127.0.0.1", port, timeout_s=1, is_guarded=True)
