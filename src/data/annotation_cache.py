"""Packed annotations kept in a file that all processes map into their memory.

Layout: 8 bytes of name and version, 32 bytes SHA-256 of all that follows, 8 bytes the header's length, the
header (JSON), then the arrays, each from a multiple of 16 bytes on. No pickle: what is read is numbers.
"""

import hashlib
import json
import logging
import math
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files import replacing
from ..structures import ClassNames, GroundTruth
from .annotations import read_annotations
from .formats import Source
from .packed import PackedAnnotations

logger = logging.getLogger(__name__)

MAGIC = b"DFANN\0\0\4"
HEADER = 48  # where it begins
ALIGNMENT = 16  # of the header's end and of every array
SMALLEST = 8_000_000  # bytes of JSON; less is read within a tenth of a second, and leaves no file behind
ARRAYS = {
    "image_ids": np.int64,
    "sizes_hw": np.int64,
    "name_bytes": np.uint8,
    "name_ends": np.int64,
    "boxes_xyxy_px": np.float32,
    "labels": np.int64,
    "ends": np.int64,
}
STATED = (np.int64, np.int64, np.int64, np.float64, np.float64, np.bool_)  # GroundTruth's, in its order


def load_annotations(
    path: Path, source: Source | None = None, *, drop_empty_boxes: bool = False, scored: bool = False
) -> PackedAnnotations:
    """What `read_annotations` gives; for a large JSON from a cache, where there is one that fits.

    The cache lies in the user's cache folder (XDG_CACHE_HOME, or ~/.cache). It fits if it was made of the
    same bytes: all of them are read and compared by their SHA-256, so no time stamp is trusted.

    Raises:
        ValueError: As `read_annotations`.
    """
    if source is not None or not is_cached(path):
        return read_annotations(path, source, drop_empty_boxes=drop_empty_boxes, scored=scored)
    digest = digest_of_file(path)
    packed = _read(path, digest)
    if packed is None or (packed.dropped and not drop_empty_boxes) or (scored and packed.stated is None):
        fresh = read_annotations(path, drop_empty_boxes=drop_empty_boxes, scored=scored)
        packed = keep_annotations(path, digest, fresh)
    elif packed.dropped:
        logger.warning("annotation file %s", packed.dropped)
    return packed


def keep_annotations(path: Path, digest: str, packed: PackedAnnotations) -> PackedAnnotations:
    """Put what was read of a large JSON into its cache; the same, mapped from there where that is possible.

    Args:
        path: The file.
        digest: Its `digest_of_file` before it was read; it is not kept if it changed since.
        packed: What was read.
    """
    unchanged = digest_of_file(path) == digest
    return (unchanged and _write(path, digest, packed) and _read(path, digest)) or packed


def is_cached(path: Path) -> bool:
    """Whether it is a file large enough for a cache, of a user with a home."""
    return path.is_file() and path.stat().st_size >= SMALLEST and cache_path(path) is not None


def cache_path(path: Path) -> Path | None:
    """Where the cache of this annotation file lies; None for a user without a home."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not folder.is_absolute():  # as the XDG specification asks
        folder = Path(os.path.expanduser("~"), ".cache")
    if not folder.is_absolute():
        return None
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return folder / "dfine" / f"{path.stem}-{key}.annotations"


def digest_of_file(path: Path) -> str:
    """SHA-256 of its bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _padded(data: bytes, fill: bytes = b"\0") -> bytes:
    return data + fill * (-len(data) % ALIGNMENT)


def _write(path: Path, digest: str, packed: PackedAnnotations) -> bool:
    """Put the cache in place in one step; False, with a warning, where it cannot be written."""
    cache = cache_path(path)
    assert cache is not None, "of a user without a home nothing is cached"
    arrays = [getattr(packed, name).numpy() for name in ARRAYS] + list(packed.stated or ())
    header = {
        "digest": digest,
        "shapes": [array.shape for array in arrays],
        "names": packed.classes.names,
        "ids": packed.classes.ids,
        "dropped": packed.dropped,
    }
    body = _padded(json.dumps(header).encode(), b" ")
    body = len(body).to_bytes(8, "little") + body + b"".join(_padded(array.tobytes()) for array in arrays)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cache) as partial:
            partial.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)
    except OSError as error:
        logger.warning("annotations are not cached: %s cannot be written (%s)", cache, error)
        return False
    return True


def _read(path: Path, digest: str) -> PackedAnnotations | None:
    """The annotations, mapped; None, saying why, where the cache is missing, damaged or of other bytes."""
    cache = cache_path(path)
    assert cache is not None, "of a user without a home nothing is cached"
    try:
        with cache.open("rb") as file:
            # private, and writable so that torch takes it: pages are shared until one is written to
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            owner = os.fstat(file.fileno()).st_uid
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: an empty file
        logger.warning("annotation cache %s cannot be read (%s); it is made anew", cache, error)
        return None
    if hasattr(os, "getuid") and owner not in {0, os.getuid()}:
        logger.warning("annotation cache %s is another user's; it is not trusted", cache)
        return None
    data = memoryview(mapped)
    if bytes(data[:8]) != MAGIC or hashlib.sha256(data[HEADER - 8 :]).digest() != bytes(data[8 : HEADER - 8]):
        logger.warning("annotation cache %s is damaged or of another version; it is made anew", cache)
        return None
    start = HEADER + int.from_bytes(data[HEADER - 8 : HEADER], "little")
    header = json.loads(bytes(data[HEADER:start]))
    if header["digest"] != digest:
        logger.info("the annotation file has changed since %s was made; it is made anew", cache)
        return None
    arrays: list[np.ndarray[Any, Any]] = []
    kinds = [*ARRAYS.values(), *STATED][: len(header["shapes"])]
    for dtype, shape in zip(kinds, header["shapes"], strict=True):
        array: np.ndarray[Any, Any] = np.frombuffer(data, dtype, math.prod(shape), start)
        arrays.append(array.reshape(shape))
        start += array.nbytes + -array.nbytes % ALIGNMENT
    classes = ClassNames(tuple(header["names"]), tuple(header["ids"]))
    own = {name: torch.from_numpy(array) for name, array in zip(ARRAYS, arrays, strict=False)}
    stated = GroundTruth(*arrays[len(ARRAYS) :]) if len(arrays) > len(ARRAYS) else None
    return PackedAnnotations(**own, classes=classes, dropped=header["dropped"], stated=stated)
