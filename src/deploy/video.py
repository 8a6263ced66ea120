"""Frames of a video or a camera in and out, by OpenCV."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .extras import require

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
CODEC = "mp4v"  # MPEG-4 part 2: what OpenCV's wheels can write everywhere
FALLBACK_RATE = 25.0  # for files that state none, and for cameras, which state what they could do


class VideoFacts(NamedTuple):
    """What a video file says of itself.

    Attributes:
        rate: Frames per second.
        num_frames: How many there are, about; None where it is not known.
    """

    rate: float
    num_frames: int | None


def video_facts(path: Path) -> VideoFacts:
    """Ask a video file.

    Raises:
        ValueError: It cannot be opened, or the package is missing.
    """
    cv2 = require("cv2")
    capture = _open(path)
    try:
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    finally:
        capture.release()
    return VideoFacts(rate if 0 < rate < 1000 else FALLBACK_RATE, int(count) if count >= 1 else None)


def read_frames(source: Path | int) -> Iterator[Image.Image]:
    """The frames, RGB, turned upright where the file says how it was held; a camera's have no end.

    Raises:
        ValueError: It cannot be opened, gives no frame, or the package is missing.
    """
    cv2 = require("cv2")
    capture = _open(source)
    num_read = 0
    try:
        stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if isinstance(source, Path) else 0
        while True:
            there, frame = capture.read()
            if not there:
                break
            num_read += 1
            yield Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
    finally:
        capture.release()
    if not num_read:
        raise ValueError(f"{_called(source)}: not one frame can be read; is it a video, and whole?")
    if num_read < stated:
        logger.warning("%s: %d of the %d frames that it states can be read", source, num_read, stated)


def _open(source: Path | int) -> Any:
    """An open capture."""
    cv2 = require("cv2")
    if isinstance(source, Path) and not source.is_file():
        raise ValueError(f"{source}: no such video")
    capture = cv2.VideoCapture(str(source) if isinstance(source, Path) else source)
    if not capture.isOpened():
        capture.release()
        raise ValueError(f"{_called(source)}: OpenCV cannot open it")
    return capture


def _called(source: Path | int) -> str:
    return f"camera {source}" if isinstance(source, int) else str(source)


class VideoWriter:
    """An MP4 file that grows by frames; a context manager, at whose end all of them are there or it fails."""

    def __init__(self, path: Path, rate: float) -> None:
        """Keep the settings; the file is made by the first frame, which sets its size.

        Args:
            path: Ends in `.mp4`.
            rate: Frames per second.
        """
        self._cv2 = require("cv2")
        self._path, self._rate = path, rate
        self._writer: Any = None
        self._num_frames = 0

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, fault: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if fault is None and video_facts(self._path).num_frames != self._num_frames:  # OpenCV does not say
            raise ValueError(f"{self._path.name}: not all frames could be written; is the disk full?")

    def add(self, image: Image.Image) -> None:
        """Append an RGB picture of the first one's size, less an odd last row and column.

        Raises:
            ValueError: The file cannot be made.
        """
        width, height = image.width // 2 * 2, image.height // 2 * 2  # what the codec can hold
        if self._writer is None:
            code = self._cv2.VideoWriter.fourcc(*CODEC)
            self._writer = self._cv2.VideoWriter(str(self._path), code, self._rate, (width, height))
            if not self._writer.isOpened():
                raise ValueError(f"{self._path.name}: OpenCV cannot write a video of {width}x{height} pixels")
        self._num_frames += 1
        self._writer.write(np.ascontiguousarray(np.asarray(image)[:height, :width, ::-1]))
