"""A detector as an HTTP service, with a page to try it."""

from .app import build_app
from .guard import read_token
from .limits import Limits, bytes_of
from .server import serve
from .service import Service

__all__ = ["Limits", "Service", "build_app", "bytes_of", "read_token", "serve"]
