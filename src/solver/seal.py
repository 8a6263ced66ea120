"""The seal at the end of a checkpoint file: a digest that covers every byte, the archive's own too."""

import hashlib
import os
import struct
from pathlib import Path
from typing import BinaryIO

FORMAT = 2
"""Number of the file format, from 2 on with a seal; a reader refuses a higher one than its own."""

DIGEST_LENGTH = hashlib.sha256().digest_size * 2  # in hexadecimal digits
CHUNK_BYTES = 1 << 20
_NO_COMMENT = struct.pack("<H", 0)
_NAME = b"sha256 "
_LABEL = struct.pack("<H", len(_NAME) + DIGEST_LENGTH) + _NAME
_SEAL_BYTES = len(_LABEL) + DIGEST_LENGTH


class SealedWriter:
    """Hands on to `file` what `torch.save` writes, and digests it on the way.

    A ZIP archive ends with the length of its comment in two bytes, and the comment. `seal` puts the digest
    there, of all before these two bytes; readers of ZIP files, `torch.load` among them, pass over it.
    SHA-256 rather than a CRC: damage of any kind is found, at half a second a gigabyte.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._end = b""  # what may be the comment's length is not digested yet
        self.failure: BaseException | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`; what interrupts it is kept in `failure`, as torch hides it behind its own."""
        try:
            written = self._file.write(data)
        except BaseException as error:
            self.failure = error
            raise
        if len(data) < len(_NO_COMMENT):
            data = self._end + bytes(data)
        else:
            self._digest.update(self._end)
        self._digest.update(data[: -len(_NO_COMMENT)])
        self._end = bytes(data[-len(_NO_COMMENT) :])
        return written

    def flush(self) -> None:
        """Nothing: who opened the file flushes it."""

    def seal(self) -> None:
        """End the file, after `torch.save`, with the digest of what was written."""
        assert self._end == _NO_COMMENT, "torch.save ends a file with the length of an empty comment"
        self._file.seek(-len(_NO_COMMENT), os.SEEK_CUR)
        self._file.write(_LABEL + self._digest.hexdigest().encode())


def is_sealed(path: Path) -> bool:
    """Whether the file at `path` ends with a seal, intact or not."""
    return _stated(path) is not None


def seal_is_intact(path: Path) -> bool:
    """Whether the file at `path` ends with a seal that agrees with every byte of it."""
    stated = _stated(path)
    return stated is not None and stated == sha256_of(path, leave_out=_SEAL_BYTES).encode()


def sha256_of(path: Path, *, leave_out: int = 0) -> str:
    """The digest of the file at `path` without its last `leave_out` bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    left = path.stat().st_size - leave_out
    with path.open("rb") as file:
        while chunk := file.read(min(CHUNK_BYTES, left)):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def _stated(path: Path) -> bytes | None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _SEAL_BYTES))
        end = file.read()
    return end[len(_LABEL) :] if len(end) == _SEAL_BYTES and end.startswith(_LABEL) else None
