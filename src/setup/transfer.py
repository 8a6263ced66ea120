"""One file over HTTP, in pieces if need be: what has arrived is kept, and the next try goes on from there.

`torch.hub.download_url_to_file` begins anew each time, and so does `huggingface_hub` 2.4, which over HTTP
compares sizes alone; so the transfer is ours, and urllib does the talking.
"""

import logging
import os
import re
import shutil
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, responses
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from ..files import make_folder
from ..solver.seal import sha256_of

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 60.0
BLOCK_BYTES = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Source(NamedTuple):
    """Where a file comes from.

    Attributes:
        url: Its address. The query part may be a secret: it is neither shown nor stored.
        sha256: What its SHA-256 begins with, in hexadecimal digits; "" where nobody says.
    """

    url: str
    sha256: str

    @property
    def shown(self) -> str:
        """The address without its query."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}{parts.path}"


def partial(path: Path) -> Path:
    """Where `path` is kept while it arrives: the ending stays, for readers that look at it."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


def fetch(source: Source, path: Path) -> Path:
    """Bring the whole file to `partial(path)`; what an earlier try has left there is continued.

    Returns:
        `partial(path)`, on the disk and compared with the digest, if there is one.

    Raises:
        ValueError: It could not be had: no network, refused, broken off, no room, or another file. What has
            arrived stays for the next try, unless the digest says that it is of no use.
    """
    make_folder(path.parent)
    part = partial(path)
    if not (part.is_file() and source.sha256 and sha256_of(part).startswith(source.sha256)):
        with _answer(source, part) as answer:
            start, total = _extent(answer, source, part)
            _check_room(part, start, total)
            _receive(answer, source, part, start, total)
        _check_digest(source, part)
    return part


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _answer(source: Source, part: Path) -> HTTPResponse:
    """The server's answer, from where `part` ends, or from the beginning where it cannot go on there."""
    start = _size(part)
    headers = {"User-Agent": "dfine-dinov3-weights", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        answer: HTTPResponse = urlopen(Request(source.url, headers=headers), timeout=SILENCE_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            logger.warning("%s is not the beginning of what the server has: starting anew", part)
            part.unlink()
            return _answer(source, part)
        raise ValueError(f"{source.shown}: {_refusal(error.code)}") from None
    except (OSError, HTTPException, UnicodeError) as error:
        raise ValueError(
            f"{source.shown}: cannot be reached ({_reason(error)}). Is this machine online, does it need a "
            "proxy (https_proxy)? weights/README.md says how to bring the file from another machine."
        ) from None
    return answer


def _refusal(status: int) -> str:
    said = f"the server says {status} {responses.get(status, '')}".rstrip()
    if status in (401, 403, 410):
        return (
            f"{said}. A link that Meta mails expires, and a shell cuts it off at the first & where it is not "
            "quoted: put it between single quotes, or ask for a new one."
        )
    if status == 404:
        return f"{said}: there is no such file; compare the link with the one in the e-mail."
    return f"{said}. What has arrived so far is kept: try again later."


def _reason(error: Exception) -> str:
    """Why a connection failed; an exception of http.client may hold the whole address: it is only named."""
    if isinstance(error, HTTPException):
        return type(error).__name__
    reason = error.reason if isinstance(error, URLError) else error
    return f"{type(reason).__name__}: {reason}" if isinstance(reason, OSError) else str(reason)


def _extent(answer: HTTPResponse, source: Source, part: Path) -> tuple[int, int | None]:
    """Where in the file the answer begins, and the size of the whole file, None where the server is silent.

    Raises:
        ValueError: It is a web page, or a piece that was not asked for.
    """
    if answer.headers.get_content_type() == "text/html":
        raise ValueError(
            f"{source.shown}: a web page came in place of weights. Copy the download link itself, whole and "
            "between single quotes; it may also have expired."
        )
    length = answer.headers["Content-Length"]
    if answer.status != HTTPStatus.PARTIAL_CONTENT:
        return 0, int(length) if length else None
    piece = _RANGE.fullmatch(answer.headers["Content-Range"] or "")
    if piece is None or int(piece[1]) != _size(part):
        part.unlink(missing_ok=True)
        raise ValueError(f"{source.shown}: the server sent another piece than was asked for; try again.")
    return int(piece[1]), None if piece[2] == "*" else int(piece[2])


def _check_room(part: Path, start: int, total: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and free < total - start:
        raise ValueError(
            f"{part.parent}: {(total - start) / 1e6:,.1f} MB are still to come, and the disk has "
            f"{free / 1e6:,.1f} MB free; make room, or name another folder with --output-dir."
        )


def _receive(answer: HTTPResponse, source: Source, part: Path, start: int, total: int | None) -> None:
    """Write the answer into `part` from `start` on; what was there behind it goes."""
    bar = tqdm(desc=part.name, total=total, initial=start, unit="B", unit_scale=True, disable=None)
    try:
        with bar, part.open("r+b" if part.is_file() else "w+b") as file:
            file.truncate(start)
            file.seek(start)
            while block := _read(answer, source):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ValueError(f"cannot write {part}: {error.strerror}; what has arrived is kept.") from error
    size = part.stat().st_size
    if total is not None and size != total:
        raise _broken_off(source, f"after {size:,} of {total:,} bytes")


def _read(answer: HTTPResponse, source: Source) -> bytes:
    try:
        return answer.read(BLOCK_BYTES)
    except (OSError, HTTPException) as error:
        raise _broken_off(source, f"({_reason(error)})") from None


def _broken_off(source: Source, how: str) -> ValueError:
    return ValueError(
        f"{source.shown}: the connection broke off {how}. What has arrived is kept: the same command goes on "
        "from there."
    )


def _check_digest(source: Source, part: Path) -> None:
    digest = sha256_of(part)
    if not digest.startswith(source.sha256):
        size = part.stat().st_size
        part.unlink()
        raise ValueError(
            f"{source.shown}: the {size:,} bytes that came have the sha256 {digest[:16]}..., and "
            f"{source.sha256[:16]} was to be its beginning: damaged, or another file. They were thrown away; "
            "run the same command again."
        )
