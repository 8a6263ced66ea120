"""Around every request: the headers of its answer, and what is counted of it."""

import hmac
import time
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .schema import problem

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
COUNTED = ("/", "/model", "/predict", "/health", "/metrics", "/openapi.json", "/docs")
MIN_TOKEN = 16  # characters


class Guard:
    """An application with security headers on every answer, and requests counted by path and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, path = time.perf_counter(), scope["path"]

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                known = path if path in COUNTED else "other"
                self._metrics.requests.labels(known, str(message["status"])).inc()
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:  # FastAPI raises a fault again once it has answered it
            if path == "/predict":
                self._metrics.seconds.observe(time.perf_counter() - started)


def check_token(authorization: str, token: str | None) -> None:
    """Compare what a request has in its `Authorization` header, in a time that tells nothing.

    Raises:
        HTTPException: 401.
    """
    if token is None:
        return
    scheme, _, came = authorization.partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(came.strip().encode(), token.encode()):
        raise problem(401, "a token is asked for in the header: `Authorization: Bearer TOKEN`")


def read_token(path: Path | None, variable: str | None) -> str | None:
    """The token of a file, or else that of an environment variable, or else none.

    Args:
        path: The file.
        variable: The environment variable's value.

    Raises:
        ValueError: The file cannot be read, or it holds no token.
    """
    if path is None and variable is None:
        return None
    where, token = "DFINE_TOKEN", variable or ""
    if path is not None:
        where = str(path)
        try:
            token = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the token's file {path} cannot be read: {error}") from error
    token = token.strip()
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"{where} holds no token: at least {MIN_TOKEN} letters, digits or signs without a space are "
            "taken; `openssl rand -hex 32` gives one"
        )
    return token
