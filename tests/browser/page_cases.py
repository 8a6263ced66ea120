"""A service whose detector finds the bright mark in a picture, and pictures that have one."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import uvicorn
from PIL import Image
from torch import Tensor

from src.deploy.runtimes import Runtime
from src.serving import Limits, Service, build_app
from src.structures import ClassNames, Detections

NASTY = "<img src=x onerror=\"document.title='run'\">"
NAMES = ("mark", NASTY, "owl", *(f"class {index}" for index in range(3, 80)))
SCORES = (0.875, 0.625, 0.3125, 0.125)  # of the mark, and of three boxes that are always there
FIXED = ((0.0, 0.0, 0.25, 0.25), (0.7, 0.6, 1.0, 0.9), (0.1, 0.5, 0.4, 0.9))  # xyxy in shares of the picture
MARK = (40, 20, 100, 60)  # xyxy pixels of the picture as stored
SIZE = (160, 80)  # width, height


class MarkRuntime:
    """Finds the bright mark as class 0; and boxes of the classes 1, 2 and 1."""

    classes = ClassNames(NAMES, tuple(range(len(NAMES))))
    input_hw = (SIZE[1], SIZE[0])
    keep_ratio = False

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        boxes = torch.stack([torch.tensor((_mark(image), *FIXED)) for image in images])
        whole = sizes_hw.flip(1).repeat(1, 2)[:, None]
        labels, scores = torch.tensor([0, 1, 2, 1]), torch.tensor(SCORES)
        return Detections(labels.expand(len(boxes), -1), boxes * whole, scores.expand(len(boxes), -1))


def _mark(image: Tensor) -> tuple[float, ...]:
    """[3, H, W] to the bright part's corners, in shares of the picture."""
    rows, columns = (image.amin(0) > 0.5).nonzero(as_tuple=True)
    height, width = image.shape[1:]
    x0, x1, y0, y1 = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    return float(x0 / width), float(y0 / height), float(x1 / width), float(y1 / height)


@contextmanager
def serving(runtime: Runtime, name: str, limits: Limits, token: str | None = None) -> Iterator[str]:
    """The service on a free port of this machine; gives its address."""
    config = uvicorn.Config(build_app(Service(runtime, name, limits), token), log_config=None)
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def picture(path: Path, orientation: int = 1) -> Path:
    """Black, with a white mark."""
    image = Image.new("RGB", SIZE)
    image.paste((255, 255, 255), MARK)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, quality=95, exif=exif)
    return path
