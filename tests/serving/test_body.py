import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from fastapi import HTTPException, Request

from src.serving.body import DRAINED_BYTES, Body
from src.serving.places import Places
from tests.serving.conftest import LIMITS

MOST = LIMITS.max_upload_bytes


class Sender:
    """A client; `asked` counts the pieces that were taken from it."""

    def __init__(self, pieces: Iterable[bytes | None], timeout_s: float = 60, **headers: str) -> None:
        self._pieces = iter(pieces)
        self.asked = 0
        self.room = Places(2 * MOST, "{} bytes came")
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        request = Request({"type": "http", "headers": named}, self._receive)
        self.body = Body(request, LIMITS._replace(timeout_s=timeout_s))

    async def _receive(self) -> dict[str, Any]:
        self.asked += 1
        piece = next(self._pieces, b"")
        if piece is None:
            return {"type": "http.disconnect"}
        if piece == b"wait":
            await asyncio.Event().wait()
        return {"type": "http.request", "body": piece, "more_body": piece != b""}

    def refusal(self) -> int:
        with pytest.raises(HTTPException) as caught:
            asyncio.run(self.body.read(self.room))
        return caught.value.status_code


def test_body_of_the_allowed_size_is_read_whole() -> None:
    sender = Sender([b"a" * (MOST - 1), b"b"], content_length=str(MOST))
    assert asyncio.run(sender.body.read(sender.room)) == b"a" * (MOST - 1) + b"b"
    assert sender.body.ended and sender.room.taken == 0


def test_length_that_is_stated_too_large_is_refused_before_anything_is_taken() -> None:
    for length in (str(MOST + 1), "9" * 500):
        sender = Sender([b"a"], content_length=length)
        assert (sender.refusal(), sender.asked) == (413, 0)


@pytest.mark.parametrize("headers", [{}, {"content_length": "3"}, {"content_length": "many"}])
def test_length_that_is_missing_or_a_lie_does_not_let_more_through(headers: dict[str, str]) -> None:
    sender = Sender([b"a" * 1000] * 100_000, **headers)
    assert (sender.refusal(), sender.asked) == (413, MOST // 1000 + 1)
    assert not sender.body.ended


def test_slow_body_is_given_up() -> None:
    assert Sender([b"a", b"wait"], timeout_s=0.01).refusal() == 408


def test_connection_that_ends_early_is_a_refusal() -> None:
    sender = Sender([b"a", None])
    assert (sender.refusal(), sender.body.ended) == (400, True)


def test_rest_of_a_refused_body_is_thrown_away() -> None:
    sender = Sender([b"a" * MOST, b"b", b"c"])
    assert sender.refusal() == 413
    asyncio.run(sender.body.drain())
    assert (sender.body.ended, sender.asked) == (True, 4)


def test_endless_or_ended_body_is_not_drained_for_ever() -> None:
    sender = Sender([b"a" * 1_000_000] * 1000)
    asyncio.run(sender.body.drain())
    assert (sender.body.ended, sender.asked) == (False, DRAINED_BYTES // 1_000_000 + 1)
    gone = Sender([None])
    asyncio.run(gone.body.drain())
    assert gone.body.ended


def test_client_that_waits_for_leave_to_send_is_not_told_to() -> None:
    sender = Sender([b"a"], expect="100-continue", content_length=str(MOST + 1))
    assert sender.refusal() == 413
    asyncio.run(sender.body.drain())
    assert sender.asked == 0


def test_client_that_was_told_to_send_and_sends_too_much_comes_to_its_answer() -> None:
    sender = Sender([b"a" * MOST, b"b", b"c"], expect="100-continue", transfer_encoding="chunked")
    assert sender.refusal() == 413
    asyncio.run(sender.body.drain())
    assert (sender.body.ended, sender.asked) == (True, 4)


def test_client_that_has_gone_is_seen() -> None:
    async def read(last: bytes | None) -> None:
        sender = Sender([b"a", b"", last])
        await sender.body.read(sender.room)
        await sender.body.check_is_awaited()

    asyncio.run(read(b"wait"))
    with pytest.raises(HTTPException, match="ended before the answer"):
        asyncio.run(read(None))
