"""The process that listens."""

import ipaddress
import logging
import math
import signal
import socket
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ..door import Interrupted

logger = logging.getLogger(__name__)
MAX_PORT = 65535


def serve(app: ASGIApp, host: str, port: int, *, timeout_s: float, is_guarded: bool) -> None:
    """Answer until the process is told to stop; requests that have begun are answered first.

    Args:
        app: The application.
        host: Address or name to listen at.
        port: Port, 0 for any that is free.
        timeout_s: Seconds that requests have to end in when the process is told to stop.
        is_guarded: Whether a token is asked for.

    Raises:
        ValueError: Nothing can listen there.
        KeyboardInterrupt, Interrupted: What ended it.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each body that is no form
    with _listener(host, port) as listener:
        address, bound = listener.getsockname()[:2]
        if not ipaddress.ip_address(address).is_loopback and not is_guarded:
            logger.warning("%s can be reached from other machines, and no token is asked for", address)
        shown = f"[{address}]" if ":" in address else address
        logger.info("listening at http://%s:%d", shown, bound)
        signal.signal(signal.SIGTERM, _interrupt)  # uvicorn raises the signal again once it has ended
        http_server(app, timeout_s).run(sockets=[listener])


def http_server(app: ASGIApp, timeout_s: float) -> uvicorn.Server:
    """What speaks HTTP; `timeout_s` as of `serve`."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(timeout_s),
        )
    )


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)


def _listener(host: str, port: int) -> socket.socket:
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"--port {port} was asked for, allowed are 0 (any that is free) to {MAX_PORT}")
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(where[:2], family=family, backlog=2048)
    except OSError as error:
        raise ValueError(
            f"cannot listen at {host}, port {port} ({error}); choose others with --host and --port"
        ) from error
