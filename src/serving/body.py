"""The body of a request, taken as it comes and never more of it than is allowed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import HTTPException, Request

from .limits import Limits
from .places import Places
from .schema import problem

DRAINED_BYTES = 64_000_000
DRAINED_S = 5.0


class Body:
    """A body that is read once, into memory, or else thrown away."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self._request = request
        self._declared = request.headers.get("content-length", "")
        self._is_coming = "expect" not in request.headers
        self._limits = limits
        self.ended = False

    async def _chunks(self) -> AsyncIterator[bytes]:
        while not self.ended:
            message = await self._request.receive()
            self._is_coming = True  # who waited for leave to send has it now
            self.ended = not message.get("more_body", False)
            if message["type"] == "http.disconnect":
                raise problem(400, "the connection ended before the body did")
            yield message.get("body", b"")

    async def read(self, room: Places) -> bytes:
        """The whole body.

        Args:
            room: Bytes that all bodies which are coming may have together; held until this one is there.

        Raises:
            HTTPException: It is too large, whatever it says of its length, or too slow, or ends early, or
                there is no room for it.
        """
        most = self._limits.max_upload_bytes
        too_large = problem(413, f"the body is larger than the {most:,} bytes that are taken")
        if self._declared.isdecimal() and int(self._declared[:20]) > most:
            raise too_large
        body = bytearray()

        async def take() -> None:
            async for chunk in self._chunks():
                if len(body) + len(chunk) > most:
                    raise too_large
                room.take(len(chunk))
                body.extend(chunk)

        try:
            await asyncio.wait_for(take(), self._limits.timeout_s)
        except asyncio.TimeoutError as error:
            self._is_coming = False
            raise problem(
                408, f"the body did not come within the {self._limits.timeout_s:g} s that it may take"
            ) from error
        finally:
            room.give_back(len(body))
        return bytes(body)

    async def check_is_awaited(self) -> None:
        """To be called once the body has been read.

        Raises:
            HTTPException: The client has gone.
        """
        if await self._request.is_disconnected():
            raise problem(400, "the connection ended before the answer")

    async def drain(self) -> None:
        """Throw the rest away: a client that is still sending would otherwise not come to read its answer.

        What is very long or was too slow is left, and so is what the client sends only when told to.
        """
        if not self._is_coming:
            return

        async def throw_away() -> None:
            taken = 0
            async for chunk in self._chunks():
                taken += len(chunk)
                if taken > DRAINED_BYTES:
                    return

        with contextlib.suppress(asyncio.TimeoutError, HTTPException):
            await asyncio.wait_for(throw_away(), DRAINED_S)
