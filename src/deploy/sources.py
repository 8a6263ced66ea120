"""Whatever a person calls pictures, one by one as RGB: files, folders, patterns, arrays, videos, cameras."""

import glob
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..data import decode_rgb, rgb_of
from ..data.decode import read_header
from .video import VIDEO_SUFFIXES, read_frames

logger = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

Source: TypeAlias = str | Path | int | Image.Image | NDArray[Any] | Tensor
"""A file, folder or pattern; the number of a camera; a decoded picture."""


class Frame(NamedTuple):
    """One picture to detect in.

    Attributes:
        name: The file's name, or "picture 3" for the third of those that came decoded.
        image: RGB, as stored.
        path: The picture's or the video's file.
        number: Which frame of a video or camera it is, from 1 on.
    """

    name: str
    image: Image.Image
    path: Path | None = None
    number: int | None = None


def find_pictures(source: Path) -> list[Path]:
    """The picture that `source` is, or the pictures in the folder that it is, sorted by name.

    Folders inside the folder are left alone.

    Raises:
        ValueError: There is nothing at `source`, or no picture in it.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ValueError(f"{source}: no such picture or folder")
    found = sorted(path for path in source.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(
            f"{source}: no picture in this folder; looked for files ending in {', '.join(SUFFIXES)}"
        )
    return found


def list_sources(images: Source | Sequence[Source]) -> list[Source]:
    """Every picture, video and camera of `images`, with folders and patterns replaced by their files.

    Raises:
        ValueError: There is nothing where a text points, or something is of no kind that is taken.
    """
    found: list[Source] = []
    for one in images if isinstance(images, list | tuple) else [images]:
        if isinstance(one, str | Path):
            found += _files(str(one))
        elif isinstance(one, int) and not isinstance(one, bool) and one >= 0:
            found.append(one)
        elif isinstance(one, Image.Image | np.ndarray | Tensor):
            found.append(one)
        else:
            told = repr(one) if isinstance(one, int | float | None) else f"a {type(one).__name__}"
            raise ValueError(
                f"{told} came as a picture; a path, a pattern, the number of a camera, a PIL picture, a "
                "numpy array [H, W, 3], a tensor [3, H, W] and lists of these are taken"
            )
    return found


def _files(text: str) -> list[Source]:
    """The files that a text means."""
    if URL.match(text):
        raise ValueError(f"{text}: addresses are not fetched; download the file and name it")
    path = Path(text)
    if path.exists() or not glob.has_magic(text):
        return list(find_pictures(path))
    files = [Path(name) for name in sorted(glob.glob(text, recursive=True))]
    found: list[Source] = [
        file for file in files if file.is_file() and file.suffix.lower() in SUFFIXES + VIDEO_SUFFIXES
    ]
    if not found:
        raise ValueError(f"{text}: no picture or video has a name like this")
    return found


def is_moving(source: Source) -> bool:
    """Whether an entry of `list_sources` is a video or a camera."""
    return isinstance(source, int) or (isinstance(source, Path) and source.suffix.lower() in VIDEO_SUFFIXES)


def read(sources: Sequence[Source]) -> Iterator[Frame]:
    """Decode the entries of `list_sources` one by one.

    Raises:
        ValueError: A file cannot be read, or an array has no shape or type of a picture.
    """
    is_told = False
    for place, source in enumerate(sources, 1):
        if isinstance(source, int) or (isinstance(source, Path) and is_moving(source)):
            name, path = (f"camera{source}", None) if isinstance(source, int) else (source.name, source)
            for number, image in enumerate(read_frames(source), 1):
                yield Frame(name, image, path, number)
        elif isinstance(source, Path):
            if not is_told and read_header(source).orientation != 1:
                logger.warning("%s is stored turned (EXIF), and taken as stored; so is any like it", source)
                is_told = True
            yield Frame(source.name, decode_rgb(source), source)
        else:
            name = f"picture {place}"
            yield Frame(name, _decoded(source, name))


def _decoded(picture: object, name: str) -> Image.Image:
    """RGB of a picture in memory."""
    if isinstance(picture, Image.Image):
        return rgb_of(picture, name)
    pixels = _pixels(picture, name) if isinstance(picture, Tensor) else picture
    assert isinstance(pixels, np.ndarray), "list_sources takes nothing else"
    depth = 8 if pixels.dtype == np.uint8 else 16 if pixels.dtype == np.uint16 and pixels.ndim == 2 else 0
    if not depth or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,), (4,)) or not pixels.size:
        raise ValueError(
            f"{name} is an array of shape {list(pixels.shape)} and type {pixels.dtype}; uint8 [H, W, 3] "
            "RGB is taken, [H, W, 4] with transparency, and grey [H, W] of 8 or 16 bits"
        )
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image if image.mode == "RGB" else rgb_of(image, name)


def _pixels(picture: Tensor, name: str) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of a tensor [3, H, W]; floats in [0, 1] are rounded to 8 bits."""
    if picture.dim() != 3 or picture.shape[0] != 3 or not picture.numel():
        raise ValueError(
            f"{name} is a tensor of shape {list(picture.shape)}; [3, H, W] RGB is taken, "
            "a batch as a list of these"
        )
    picture = picture.detach().cpu()
    if picture.is_floating_point():
        least, most = float(picture.min()), float(picture.max())
        if not (least >= 0 and most <= 1):  # nor NaN
            raise ValueError(f"{name} is a float tensor from {least:g} to {most:g}; RGB in [0, 1] is taken")
        picture = picture.double().mul(255).round().to(torch.uint8)
    if picture.dtype != torch.uint8:
        raise ValueError(f"{name} is a tensor of {picture.dtype}; uint8, or floats in [0, 1], are taken")
    return picture.permute(1, 2, 0).contiguous().numpy()
