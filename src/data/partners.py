"""Other pictures to mix into one: which ones is a function of (seed, epoch, index), how fast the cache's.

Whoever mixes pictures needs several for each, and decoding is most of the work. So all pictures that are
loaded at about the same time draw their partners from one small pool, which each loading process keeps
decoded. The pool depends neither on the process nor on what it has kept: a cache that is smaller, or off,
costs time and changes nothing.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ..structures import Target
from .picture import Picture
from .pipeline import Pipeline
from .sampler import epoch_order
from .seeds import seed_of

Array = np.ndarray[Any, Any]

POOL_SIZE = 128
SPAN = 1024
"""Pictures of an epoch's order that share a pool: it is decoded once for them in each loading process."""

POOLS = 4  # tells the seeds of pools from those of the other draws of an epoch


class Source(Protocol):
    """A dataset, as those who mix its pictures see it."""

    seed: int
    transforms: Pipeline

    def __len__(self) -> int: ...

    def load(self, index: int) -> tuple[Image.Image, Target]:
        """One picture as stored, with its objects."""
        ...


class Stored(NamedTuple):
    """A picture before its transforms.

    Attributes:
        pixels: uint8 [h, w, 3].
        target: Its objects, in these pixels.
    """

    pixels: Tensor
    target: Target

    @property
    def num_bytes(self) -> int:
        """Memory of the tensors."""
        tensors = (self.pixels, self.target.boxes_xyxy_px, self.target.labels)
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


class PictureCache:
    """Pictures by index, at most `max_bytes` of them: the one not asked for the longest goes first.

    Attributes:
        num_bytes: Memory of the pictures that are kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._kept: OrderedDict[int, Stored] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, index: int, load: Callable[[int], Stored]) -> Stored:
        """The picture, from memory or else by `load`; one that is larger than the cache is not kept."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        stored = load(index)
        if stored.num_bytes <= self.max_bytes:
            while self.num_bytes + stored.num_bytes > self.max_bytes:
                self.num_bytes -= self._kept.popitem(last=False)[1].num_bytes
            self._kept[index] = stored
            self.num_bytes += stored.num_bytes
        return stored

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self.num_bytes = 0


class Partners:
    """The pictures that others are mixed with, shrunk to `longest` pixels on the longer side where larger.

    Args:
        longest: In pixels.
        max_bytes: Of the cache, in each process.
    """

    def __init__(self, longest: int, max_bytes: int) -> None:
        self.longest = longest
        self.cache = PictureCache(max_bytes)
        self._positions: tuple[tuple[int, int, int], Array] | None = None

    def pool(self, source: Source, epoch: int, index: int) -> Array:
        """Indices of the pictures that this one's partners are drawn from.

        The pictures at places 0 to SPAN - 1 of the epoch's order have one pool, the next SPAN another.
        """
        size = len(source)
        key = (size, source.seed, epoch)
        if self._positions is None or self._positions[0] != key:
            positions = np.empty(size, dtype=np.int64)
            positions[epoch_order(size, source.seed, epoch).numpy()] = np.arange(size)
            self._positions = key, positions
        span = int(self._positions[1][index]) // SPAN
        rng = np.random.default_rng(seed_of(source.seed, epoch, span, POOLS))
        drawn: Array = rng.choice(size, min(POOL_SIZE, size), replace=False)
        return drawn

    def get(self, source: Source, index: int) -> Stored:
        """A partner, ready for the transforms."""
        return self.cache.get(index, lambda wanted: self._shrunk(load(source, wanted)))

    def _shrunk(self, stored: Stored) -> Stored:
        h, w = stored.pixels.shape[:2]
        if max(h, w) <= self.longest:
            return stored
        return resized(stored, self.longest / max(h, w))


def load(source: Source, index: int) -> Stored:
    """A picture as it is stored in its file."""
    image, target = source.load(index)
    return Stored(pil_to_tensor(image).permute(1, 2, 0), target)


def resized(stored: Stored, factor: float) -> Stored:
    """The picture with both sides times `factor`, to the nearest pixel."""
    h, w = stored.pixels.shape[:2]
    new_h, new_w = max(1, round(h * factor)), max(1, round(w * factor))
    boxes = stored.target.boxes_xyxy_px
    scaled = boxes * boxes.new_tensor((new_w / w, new_h / h) * 2)
    pixels = Picture.of(stored.pixels).resize((new_h, new_w)).render()
    return Stored(pixels, stored.target._replace(boxes_xyxy_px=scaled))
