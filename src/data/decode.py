"""Picture files to RGB: the only place that opens one."""

import os
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 89_000_000  # just below where Pillow itself begins to warn of a decompression bomb
EXIF_ORIENTATION = 0x0112
TRANSPOSING = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class PictureError(ValueError):
    """A picture that cannot be used; the text names the file and the remedy."""


def decode_rgb(path: str | Path, size_hw: tuple[int, int] | None = None) -> Image.Image:
    """The picture in `path` as 8-bit RGB, in the pixel frame that its boxes are written in.

    Pixels are taken as stored: COCO's boxes are, and an EXIF orientation is not applied. There is one
    exception: where `size_hw` does not fit the stored pixels but fits them once turned as EXIF says, whoever
        wrote the
    annotations saw the turned picture, and it is turned. Transparency is dropped, 16-bit grey is scaled to 8
    bits.

    Args:
        path: A JPEG, PNG, WebP, BMP or TIFF file; of an animation the first frame is taken.
        size_hw: (height, width) that the annotations state; None accepts any.

    Raises:
        PictureError: The file is missing, damaged, too large, of another kind or another size.
    """
    if not os.path.isfile(path):
        raise PictureError(
            f"picture {path} does not exist (or is not a regular file); restore it or correct the path"
        )
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PictureError(
                    f"picture {path} has {image.width}x{image.height} pixels, more than the {MAX_PIXELS:,} "
                    "that are decoded (a guard against decompression bombs); store it smaller"
                )
            turned = _is_turned(image, size_hw, path)
            if turned:
                ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image, path)
    except UnidentifiedImageError as error:
        raise PictureError(
            f"picture {path} is none of {', '.join(FORMATS)}, or its header is damaged; "
            "replace the file or take it out of the dataset"
        ) from error
    except PictureError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise PictureError(
            f"picture {path} cannot be decoded ({error}): it is truncated or damaged; "
            "replace the file or take it out of the dataset"
        ) from error


def _is_turned(image: Image.Image, size_hw: tuple[int, int] | None, path: str | Path) -> bool:
    """Whether `size_hw` is the size of the picture once turned as its EXIF orientation says."""
    stored_hw = (image.height, image.width)
    if size_hw is None or stored_hw == tuple(size_hw):
        return False
    if image.getexif().get(EXIF_ORIENTATION) in TRANSPOSING and stored_hw[::-1] == tuple(size_hw):
        return True
    raise PictureError(
        f"picture {path} is {image.width}x{image.height} (width x height), but its annotations say "
        f"{size_hw[1]}x{size_hw[0]}: its boxes would lie in the wrong place; correct the JSON's width and "
        "height, or restore the picture that was annotated"
    )


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    """8-bit RGB of any mode that has an agreed range of values."""
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips to 255 and turns almost every 16-bit picture white
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise PictureError(
            f"picture {path} stores 32-bit values (mode {image.mode}), for which there is no agreed white; "
            "store it with 8 or 16 bits"
        )
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")
