"""A detector that tells pictures apart and takes no time, and a client of its service."""

import asyncio
import io
import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from src.deploy.predictor import Predictor
from src.serving import Limits, Service, build_app
from src.structures import ClassNames, Detections

Call = Callable[..., httpx.Response]
LIMITS = Limits(max_upload_bytes=300_000, max_pixels=50_000, max_pictures=3, max_waiting=6, timeout_s=60)


class Means:
    """Three detections a picture: scores are the mean red, green and blue, boxes a part of the picture."""

    classes = ClassNames(("red", "green", "blue"), (1, 7, 90))
    input_hw = (32, 48)
    keep_ratio = False

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        scores, labels = images.mean((2, 3)).sort(descending=True)
        h, w = sizes_hw.float().T
        boxes = torch.stack((0 * w, 0 * h, w / 2, h / 4), 1)[:, None].expand(-1, 3, -1)
        return Detections(labels, boxes, scores)


class Stuck(Means):
    """A detector that does not answer before it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        assert self.go.wait(60)
        return super().run(images, sizes_hw)


def picture(red: int, kind: str = "PNG", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """A file of one colour with some noise."""
    noise = np.random.default_rng(red).integers(0, 30, (size[1], size[0], 3))
    pixels = (noise + [red, 100, 20]).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes `count` times more."""
    data = picture(9, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (count + 1) + data[-2:]


def form(*files: bytes) -> dict[str, Any]:
    """Arguments of a request with these files."""
    return {"files": [("files", (f"{i}.png", data)) for i, data in enumerate(files)]}


@pytest.fixture
def service() -> Any:
    made = Service(Means(), "means.onnx", LIMITS, max_wait_ms=0)
    yield made
    made.close()


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(Means())


async def ask(app: Any, method: str, path: str, **arguments: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return await client.request(method, path, **arguments)


@pytest.fixture
def call(service: Service) -> Call:
    """Ask the service without a network between."""
    app = build_app(service)
    return lambda method, path, **arguments: asyncio.run(ask(app, method, path, **arguments))
