"""Backgrounds, shapes and textures of the demo pictures, drawn from a NumPy generator.

Legend: H, W sides of a picture, n side of the square patch that holds one shape; colours are RGB in [0, 255].
"""

import colorsys
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray[Any, Any]
Points = list[tuple[float, float]]

SUPERSAMPLING = 4


class Outline(NamedTuple):
    """A shape around (0, 0) in the circle of radius 1: its polygon, and the polygon of its hole."""

    outer: Points
    hole: Points | None = None


def _regular(num_points: int, radius: float = 1.0) -> Points:
    angles = [2 * math.pi * k / num_points for k in range(num_points)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _star() -> Points:
    return [p for a, b in zip(_regular(10)[::2], _regular(10, 0.42)[1::2], strict=True) for p in (a, b)]


def _cross(arm: float = 0.32) -> Points:
    reach = math.sqrt(1 - arm * arm)
    corner = [(reach, -arm), (reach, arm), (arm, arm)]
    turns = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    return [(x * c - y * s, x * s + y * c) for c, s in turns for x, y in corner]


OUTLINES: dict[str, Outline] = {
    "circle": Outline(_regular(48)),
    "square": Outline(_regular(4)),
    "triangle": Outline(_regular(3)),
    "star": Outline(_star()),
    "ring": Outline(_regular(48), _regular(48, 0.58)),
    "cross": Outline(_cross()),
}


def shape_coverage(name: str, rng: np.random.Generator, diameter: float) -> Array:
    """How much of each pixel a shape covers, float32 [n, n] in [0, 1]; rotated and stretched at random."""
    n = math.ceil(diameter) + 2
    angle = rng.uniform(0, 2 * math.pi)
    stretch = rng.uniform(0.75, 1.0)
    cos, sin = math.cos(angle), math.sin(angle)
    scale = SUPERSAMPLING * diameter / 2
    centre = SUPERSAMPLING * n / 2

    def placed(points: Points) -> Points:
        return [
            (centre + scale * (x * cos - y * stretch * sin), centre + scale * (x * sin + y * stretch * cos))
            for x, y in points
        ]

    image = Image.new("L", (n * SUPERSAMPLING, n * SUPERSAMPLING))
    draw = ImageDraw.Draw(image)
    outline = OUTLINES[name]
    draw.polygon(placed(outline.outer), fill=255)
    if outline.hole:
        draw.polygon(placed(outline.hole), fill=0)
    return np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32) / 255


def _hsv(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Array:
    rgb = colorsys.hsv_to_rgb(rng.uniform(0, 1), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb, dtype=np.float32) * 255


def _grid(h: int, w: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Pixel positions along a random direction and across it, each [h, w]."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _smooth_noise(h: int, w: int, rng: np.random.Generator, cells: int) -> Array:
    """Noise [h, w] in [0, 1] whose features are about 1 / `cells` of the picture."""
    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    return np.asarray(coarse.resize((w, h), Image.Resampling.BICUBIC), dtype=np.float32) / 255


def _flat(h: int, w: int, rng: np.random.Generator) -> Array:
    return np.full((h, w), rng.uniform(0, 0.3), dtype=np.float32)


def _gradient(h: int, w: int, rng: np.random.Generator) -> Array:
    along, _ = _grid(h, w, rng)
    low, high = along.min(), along.max()
    return np.asarray((along - low) / max(float(high - low), 1.0))


def _stripes(h: int, w: int, rng: np.random.Generator) -> Array:
    along, _ = _grid(h, w, rng)
    period = rng.uniform(0.12, 0.4) * min(h, w)
    return np.asarray(0.5 + 0.5 * np.sin(along * (2 * math.pi / max(period, 3.0))))


def _checks(h: int, w: int, rng: np.random.Generator) -> Array:
    along, across = _grid(h, w, rng)
    cell = max(rng.uniform(0.12, 0.3) * min(h, w), 2.0)
    return ((np.floor(along / cell) + np.floor(across / cell)) % 2).astype(np.float32)


def _noise(h: int, w: int, rng: np.random.Generator) -> Array:
    return _smooth_noise(h, w, rng, int(rng.integers(4, 20)))


def _blobs(h: int, w: int, rng: np.random.Generator) -> Array:
    return np.clip((_smooth_noise(h, w, rng, int(rng.integers(4, 9))) - 0.5) * 8 + 0.5, 0, 1)


Pattern = Callable[[int, int, np.random.Generator], Array]
BACKGROUNDS: tuple[Pattern, ...] = (_gradient, _noise, _stripes, _blobs)
TEXTURES: tuple[Pattern, ...] = (_flat, _gradient, _stripes, _checks, _noise)


def _mix(pattern: Array, first: Array, second: Array) -> Array:
    return np.asarray(pattern[..., None] * second + (1 - pattern[..., None]) * first)


def draw_background(h: int, w: int, rng: np.random.Generator) -> Array:
    """A pale or dull picture [h, w, 3] float32, in front of which the shapes stand."""
    pattern = BACKGROUNDS[rng.integers(len(BACKGROUNDS))](h, w, rng)
    first = _hsv(rng, (0.0, 0.35), (0.2, 0.95))
    second = np.clip(first + rng.uniform(-60, 60, 3), 0, 255)
    grain = rng.normal(0, rng.uniform(1, 6), (h, w, 1))
    return np.asarray(_mix(pattern, first, second) + grain, dtype=np.float32)


def draw_texture(n: int, rng: np.random.Generator, behind: Array) -> Array:
    """A textured patch [n, n, 3] float32 whose colours stand out from the colour `behind` it."""
    colour = _hsv(rng, (0.5, 1.0), (0.3, 1.0))
    for _ in range(20):
        if np.linalg.norm(colour - behind) > 90:
            break
        colour = _hsv(rng, (0.5, 1.0), (0.3, 1.0))
    pattern = TEXTURES[rng.integers(len(TEXTURES))](n, n, rng)
    return _mix(pattern, colour, colour * rng.uniform(0.45, 0.8))
