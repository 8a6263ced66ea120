"""Picture files to RGB: the only place that opens one."""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 89_000_000  # just below where Pillow itself begins to warn of a decompression bomb
EXIF_ORIENTATION = 0x0112
TRANSPOSING = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}  # how files of JPEG and PNG begin, and what ends them
TAIL = 4096  # bytes that are searched for it: zeros or a remark may follow
MAX_SCANS = 100  # of a JPEG that comes from a stranger; a progressive one has about 10
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow raises at broken files


class PictureError(ValueError):
    """A picture that cannot be used; the text names the file and the remedy.

    Args:
        text: For the user.
        code: The doctor's name for this kind of fault.
    """

    def __init__(self, text: str, code: str = "picture-unreadable") -> None:
        super().__init__(text)
        self.code = code


class Header(NamedTuple):
    """What a picture's file says before its pixels.

    Attributes:
        size_hw: (height, width) of the pixels as stored.
        orientation: EXIF's, 1 to 8; 1 where there is none.
        mode: Pillow's name of the kind of pixels, "RGB" or "I;16" for instance.
        is_transparent: Whether it can hold transparency.
        frames: How many pictures the file holds.
    """

    size_hw: tuple[int, int]
    orientation: int
    mode: str
    is_transparent: bool
    frames: int

    @property
    def shown_hw(self) -> tuple[int, int]:
        """(height, width) once turned as the orientation says."""
        h, w = self.size_hw
        return (w, h) if self.orientation in TRANSPOSING else (h, w)


def read_header(path: str | Path, size_hw: tuple[int, int] | None = None) -> Header:
    """What the file says of itself, without decoding it.

    Args:
        path: As `decode_rgb`.
        size_hw: (height, width) that is expected; where it differs, a PNG's EXIF is looked for behind its
            pixels, too.

    Raises:
        PictureError: The file cannot be opened as a picture, or is too large.
    """
    with _opened(path) as image:
        stored_hw = (image.height, image.width)
        quick = image.format != "PNG" or "exif" in image.info  # else Pillow decodes a PNG to look behind it
        orientation = _orientation(image) if quick or size_hw not in (None, stored_hw) else 1
        frames = getattr(image, "n_frames", 1)
        return Header(stored_hw, orientation, image.mode, image.has_transparency_data, frames)


def has_end(path: str | Path) -> bool:
    """Whether a JPEG's or a PNG's last bytes hold the mark that ends it; other kinds of files have none.

    A file without it may be whole, with much behind its mark (a film, say): only decoding tells.

    Raises:
        PictureError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            tail = file.read()
    except OSError as error:
        raise PictureError(f"picture {path} cannot be read ({error}); correct its permissions") from error
    return all(mark in tail for begin, mark in ENDS.items() if start.startswith(begin))


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 to 8; 1 where there is none, or none that can be read: it has no say over the pixels."""
    try:
        orientation: int = image.getexif().get(EXIF_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return orientation if orientation in range(1, 9) else 1


def is_turned(header: Header, size_hw: tuple[int, int], path: str | Path) -> bool:
    """Whether `size_hw` is the size of the picture once turned as its EXIF orientation says.

    Raises:
        PictureError: It is neither this nor the size as stored.
    """
    if header.size_hw == tuple(size_hw):
        return False
    if header.orientation in TRANSPOSING and header.size_hw[::-1] == tuple(size_hw):
        return True
    h, w = header.size_hw
    raise PictureError(
        f"picture {path} is {w}x{h} (width x height), but its annotations say {size_hw[1]}x{size_hw[0]}: its "
        "boxes would lie in the wrong place; correct the JSON's width and height, or restore the picture "
        "that was annotated",
        "picture-size-differs",
    )


def check_mode(mode: str, path: str | Path) -> None:
    """Refuse kinds of pixels that have no agreed range of values.

    Raises:
        PictureError: It is one of them.
    """
    if mode in ("I", "F"):
        raise PictureError(
            f"picture {path} stores 32-bit values (mode {mode}), for which there is no agreed white; "
            "store it with 8 or 16 bits",
            "picture-32-bit",
        )


def decode_rgb(path: str | Path, size_hw: tuple[int, int] | None = None) -> Image.Image:
    """The picture in `path` as 8-bit RGB, in the pixel frame that its boxes are written in.

    Pixels are taken as stored: COCO's boxes are, and an EXIF orientation is not applied. There is one
    exception: where `size_hw` does not fit the stored pixels but fits them once turned as EXIF says, whoever
    wrote the annotations saw the turned picture, and it is turned. Transparency is dropped, 16-bit grey is
    scaled to 8 bits.

    Args:
        path: A JPEG, PNG, WebP, BMP or TIFF file; of an animation the first frame is taken.
        size_hw: (height, width) that the annotations state; None accepts any.

    Raises:
        PictureError: The file is missing, damaged, too large, of another kind or another size.
    """
    with _opened(path) as image:
        stored_hw = (image.height, image.width)
        if size_hw is not None and stored_hw != tuple(size_hw):
            if is_turned(Header(stored_hw, _orientation(image), image.mode, False, 1), size_hw, path):
                ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image, path)


def decode_bytes(data: bytes, name: str, max_pixels: int | None = None) -> Image.Image:
    """A file that came as bytes as 8-bit RGB: what `decode_rgb` makes of it on a disk.

    Args:
        data: The whole file.
        name: What to call it in a message.
        max_pixels: More are refused before any is decoded; None for as many as `decode_rgb` takes.

    Raises:
        PictureError: It is damaged, too large, of another kind, or a JPEG of more than 100 scans: each goes
            over all of the picture, so that a small file of thousands would take minutes.
    """
    with _reading(BytesIO(data), name, max_pixels) as image:
        _refuse_scans(data, name)
        return _to_rgb(image, name)


def _refuse_scans(data: bytes, name: str) -> None:
    if not data.startswith(b"\xff\xd8"):
        return
    scans, place = 0, 2
    while (found := _MARKER.search(data, place)) and found[0] != b"\xff\xd9":
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        scans += found[0] == b"\xff\xda"
        if scans > MAX_SCANS:
            raise PictureError(
                f"picture {name} is a JPEG of more than {MAX_SCANS} scans, which may take minutes to decode; "
                "store it anew",
                "picture-scans",
            )


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The open file; whatever goes wrong with it inside is a `PictureError`."""
    if not os.path.isfile(path):
        raise PictureError(
            f"picture {path} does not exist (or is not a regular file); restore it or correct the path",
            "picture-missing",
        )
    with _reading(path, path) as image:
        yield image


@contextmanager
def _reading(
    file: str | Path | BytesIO, path: str | Path, max_pixels: int | None = None
) -> Iterator[Image.Image]:
    """A file, called `path` in messages; whatever goes wrong with it inside is a `PictureError`."""
    code = "picture-unreadable"
    try:
        with Image.open(file, formats=FORMATS) as image:
            _refuse_bomb(image, path, max_pixels)
            code = "picture-truncated"
            yield image
    except UnidentifiedImageError as error:
        raise PictureError(
            f"picture {path} is none of {', '.join(FORMATS)}, or its header is damaged; "
            "replace the file or take it out of the dataset",
            code,
        ) from error
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"picture {path}: {error}; store it smaller", "picture-oversized") from error
    except _DAMAGE as error:
        raise PictureError(
            f"picture {path} cannot be decoded ({error}): it is truncated or damaged; "
            "replace the file or take it out of the dataset",
            code,
        ) from error


def _refuse_bomb(image: Image.Image, path: str | Path, max_pixels: int | None = None) -> None:
    allowed = MAX_PIXELS if max_pixels is None else max_pixels
    if image.width * image.height > allowed:
        raise PictureError(
            f"picture {path} has {image.width}x{image.height} pixels, more than the {allowed:,} "
            "that are decoded (a guard against decompression bombs); store it smaller",
            "picture-oversized",
        )


def rgb_of(image: Image.Image, name: str) -> Image.Image:
    """A picture that Pillow has opened or made as 8-bit RGB: what `decode_rgb` makes of its file.

    Args:
        image: Of any mode that `decode_rgb` takes; it is not changed.
        name: What to call it in a message.

    Raises:
        PictureError: It is damaged, too large, or of another mode.
    """
    _refuse_bomb(image, name)
    try:
        return _to_rgb(image, name)
    except PictureError:
        raise
    except (*_DAMAGE, AssertionError) as error:  # Pillow asserts that the file is open
        raise PictureError(
            f"picture {name} cannot be decoded ({error}): it is truncated, damaged or closed; "
            "open its file again",
            "picture-truncated",
        ) from error


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    """8-bit RGB of any mode that has an agreed range of values."""
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips to 255 and turns almost every 16-bit picture white
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    check_mode(image.mode, path)
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")
