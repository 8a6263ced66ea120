"""That what a service has on its hands is bounded, and given back."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from fastapi import HTTPException, Request

from src.data import PictureError
from src.serving import Service, build_app
from src.serving.body import Body
from src.serving.reading import Decoding
from tests.serving.conftest import LIMITS, Means, ask, form, picture


def test_place_of_a_decoder_is_free_when_its_thread_is_and_what_waited_for_it_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go = threading.Event(), threading.Event()

    def endless(*_: object) -> None:
        begun.set()
        assert go.wait(60)
        raise PictureError("it took long")

    monkeypatch.setattr("src.serving.reading.decode_bytes", endless)
    monkeypatch.setattr("src.serving.service.DECODERS", 1)
    service = Service(Means(), "means", LIMITS._replace(timeout_s=0.5))
    app = build_app(service)
    gave_up: list[int] = []
    monkeypatch.setattr(Decoding, "give_up", lambda *_: gave_up.append(1))

    async def both() -> Sequence[httpx.Response]:
        first = asyncio.create_task(ask(app, "POST", "/predict", **form(picture(3))))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        return [await ask(app, "POST", "/predict", **form(picture(3))), await first]

    assert [answer.status_code for answer in asyncio.run(both())] == [503, 503]
    assert (service.waiting, len(gave_up)) == (1, 2)
    go.set()
    while service.waiting:
        time.sleep(0.01)
    service.close()


def test_body_that_is_given_up_is_held_no_longer() -> None:
    body = bytes(10_000)
    held = sys.getrefcount(body)
    decoding = Decoding("application/json", body)
    assert sys.getrefcount(body) > held
    decoding.give_up()
    assert sys.getrefcount(body) == held


def test_slow_bodies_take_no_place_and_are_bounded_by_what_has_come(service: Service) -> None:
    app = build_app(service)
    most = LIMITS.max_waiting * LIMITS.max_upload_bytes

    async def requests() -> list[int]:
        begun, go = asyncio.Semaphore(0), asyncio.Event()

        async def slow(size: int) -> AsyncIterator[bytes]:
            yield b"x" * size
            begun.release()
            await go.wait()

        sent, found = [], []
        sizes = [1] * (2 * LIMITS.max_waiting), [LIMITS.max_upload_bytes] * (LIMITS.max_waiting - 1)
        for group in sizes:
            for size in group:
                sent.append(asyncio.create_task(ask(app, "POST", "/predict", content=slow(size))))
                await begun.acquire()
            found.append(await ask(app, "POST", "/predict", **form(picture(3))))
        rest = most - service._coming.taken - 10
        sent.append(asyncio.create_task(ask(app, "POST", "/predict", content=slow(rest))))
        await begun.acquire()
        found.append(await ask(app, "POST", "/predict", **form(picture(3))))
        go.set()
        found += await asyncio.gather(*sent)
        return [answer.status_code for answer in found]

    assert asyncio.run(requests())[:3] == [200, 200, 503]
    assert service._coming.taken == 0


@pytest.mark.parametrize("gone_at", [1, 2])
def test_nothing_is_done_for_a_client_that_has_gone(gone_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    service = Service(Means(), "means", LIMITS)
    monkeypatch.setattr(service.runtime, "run", lambda *_: done.append("detected"))
    decode = Decoding.run
    monkeypatch.setattr(Decoding, "run", lambda *arguments: done.append("decoded") or decode(*arguments))
    sent = httpx.Request("POST", "http://x", **form(picture(3)))
    messages: list[dict[str, object]] = [{"type": "http.request", "body": sent.read()}]

    async def receive() -> dict[str, object]:
        if messages:
            return messages.pop()
        asked.append(1)
        if len(asked) < gone_at:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    asked: list[int] = []
    content_type = sent.headers["content-type"]
    body = Body(Request({"type": "http", "headers": []}, receive), LIMITS)
    with pytest.raises(HTTPException, match="ended before the answer"):
        asyncio.run(service.answer(content_type, body))
    assert (done, service.waiting) == (["decoded"] * (gone_at - 1), 0)
    service.close()
