"""A picture that remembers what is to be done to it, and does it all at once.

Zooming out onto a canvas of 16 times the area and cutting a part out of it again costs ten times what the
pixels seen at the end are worth. So transforms only note what they do, and `Picture.render` copies, mirrors
and resizes the pixels that are seen, once. What it gives is what the transforms would give one by
one, but for colours where shrinking leaves less than half of the pixels: they are changed after it, and near
black and white, where the steps clamp, that differs.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .colours import Colours, distort

COLOURS, ZOOM, CROP, FLIP, SIZE = range(1, 6)  # the order in which pending changes are made
LATE = 0.5  # share of the pixels that is left
SEARCH = 32  # output pixels looked through for one that begins at a whole pixel of the canvas


class Picture(NamedTuple):
    """Pixels, and the changes that are pending: of colours, of the frame, mirroring, resizing, in this order.

    Attributes:
        pixels: uint8 [h, w, 3].
        frame: (top, left, height, width) of the part that is seen, in pixels; it may reach beyond them.
        colours: Distortion of the pixels, not of what is beyond them.
        fill: Grey level beyond the pixels.
        mirrored: Whether left and right are exchanged.
        size_hw: What the frame is resized to; None leaves it.
        stage: The last change noted.
    """

    pixels: Tensor
    frame: tuple[int, int, int, int]
    colours: Colours | None = None
    fill: int = 0
    mirrored: bool = False
    size_hw: tuple[int, int] | None = None
    stage: int = 0

    @classmethod
    def of(cls, pixels: Tensor) -> "Picture":
        """A picture of these pixels, uint8 [h, w, 3], as they are."""
        return cls(pixels, (0, 0, *pixels.shape[:2]))

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width after all changes."""
        return self.size_hw or self.frame[2:]

    def _before(self, stage: int) -> "Picture":
        """This picture, with changes done where they would otherwise come after those of `stage`."""
        return self if self.stage < stage else Picture.of(self.render())

    def distort(self, colours: Colours) -> "Picture":
        """With other colours."""
        return self._before(COLOURS)._replace(colours=colours, stage=COLOURS)

    def zoom_out(self, frame: tuple[int, int, int, int], fill: int) -> "Picture":
        """On a canvas: `frame` is its (top, left, height, width) as seen from the picture."""
        return self._before(ZOOM)._replace(frame=frame, fill=fill, stage=ZOOM)

    def crop(self, frame: tuple[int, int, int, int]) -> "Picture":
        """Only the part (top, left, height, width) of it, which must lie inside."""
        picture = self._before(CROP)
        top, left = picture.frame[:2]
        return picture._replace(frame=(top + frame[0], left + frame[1], *frame[2:]), stage=CROP)

    def flip(self) -> "Picture":
        """With left and right exchanged."""
        return self._before(FLIP)._replace(mirrored=True, stage=FLIP)

    def resize(self, size_hw: tuple[int, int]) -> "Picture":
        """Stretched to `size_hw`, bilinear with antialiasing."""
        return self._before(SIZE)._replace(size_hw=size_hw, stage=SIZE)

    def render(self) -> Tensor:
        """The pixels, uint8 [H, W, 3], after all changes; perhaps the same memory as `pixels`."""
        if self.stage == 0:
            return self.pixels
        top, left, h, w = self.frame
        rows = _Span.of(top, h, self.pixels.shape[0], self.hw[0], mirrored=False)
        columns = _Span.of(left, w, self.pixels.shape[1], self.hw[1], mirrored=self.mirrored)
        seen = self.pixels[slice(*rows.seen), slice(*columns.seen)]
        if seen.numel() == 0:
            return torch.full((*self.hw, 3), self.fill, dtype=torch.uint8)
        # colours are changed pixel by pixel: after shrinking, where that leaves far fewer of them
        late = rows.scale * columns.scale < LATE
        if self.colours and not late:
            seen = distort(seen, self.colours, self.pixels)
        seen = seen.flip(1) if self.mirrored else seen
        out = _resize(seen, rows, columns, self.fill)
        if self.colours and late:
            inner = out[slice(*rows.inner), slice(*columns.inner)]
            inner.copy_(distort(inner, self.colours, self.pixels))
        return out


class _Span(NamedTuple):
    """One axis of a frame: which pixels are seen in it, and where they are in the output.

    Attributes:
        seen: First pixel that is seen, and the one after the last.
        source: Length of what is resized: the pixels seen, and as much fill as the filter reaches.
        offset: Where in `source` the pixels begin.
        out: First pixel of the output that `source` is resized to, and the one after the last.
        inner: The same of the output pixels that lie, by half or more, in the seen ones.
        scale: Output pixels for one of the frame.
        size: Of the output.
    """

    seen: tuple[int, int]
    source: int
    offset: int
    out: tuple[int, int]
    inner: tuple[int, int]
    scale: float
    size: int

    @classmethod
    def of(cls, start: int, length: int, num_pixels: int, size: int, *, mirrored: bool) -> "_Span":
        """For a frame of `length` from pixel `start` on, of `num_pixels`, that becomes `size` long."""
        seen = min(max(0, start), num_pixels), max(0, min(num_pixels, start + length))
        first, last = seen[0] - start, seen[1] - start
        if mirrored:
            first, last = length - last, length - first
        step = length / size
        reach = max(step, 1.0) if step != 1 else 0.0
        begin, source_begin = 0, 0
        if first > 0:
            # From the last output pixel that lies before the filter of any pixel that is seen, go back to one
            # that begins at a whole pixel of the frame, or nearly: the fraction is by how much pixels shift.
            untouched = math.floor((first - reach) / step - 0.5)
            before = max(0, untouched + math.floor(1.5 - reach / step))
            begin = min(range(before, max(before - SEARCH, -1), -1), key=lambda k: (k * step + 1e-6) % 1)
            if (begin * step + 1e-6) % 1 > 1 / SEARCH:
                begin = 0  # none of them begins at a whole pixel: the fill is resized, too
            source_begin = math.floor(begin * step + 1e-6)
        end, source_end = size, length
        if last < length:
            end = min(size, math.ceil((last + reach) / step - 0.5))
            source_end = min(length, math.ceil((end - 0.5) * step + reach))
        if step != 1 and end - begin == source_end - source_begin:
            # torch takes equal lengths for nothing to do, whatever the scale
            if last < length:
                source_end += 1
            else:
                begin, source_begin = 0, 0
        inner = round(first / step), round(last / step)
        return cls(
            seen,
            source_end - source_begin,
            first - source_begin,
            (begin, end),
            inner,
            1 / step,
            size,
        )


def _resize(seen: Tensor, rows: _Span, columns: _Span, fill: int) -> Tensor:
    """The output uint8 [H, W, 3] from the pixels that are seen."""
    h, w = seen.shape[:2]
    if (h, w) != (rows.source, columns.source):
        padded = torch.full((rows.source, columns.source, 3), fill, dtype=torch.uint8)
        padded[rows.offset : rows.offset + h, columns.offset : columns.offset + w] = seen
        seen = padded
    hw = rows.out[1] - rows.out[0], columns.out[1] - columns.out[0]
    if (rows.scale, columns.scale) != (1, 1):
        # torch's function for this takes a size or a scale; here the scale must be exact and the size given
        resized = torch.ops.aten._upsample_bilinear2d_aa(
            seen.contiguous()[None].permute(0, 3, 1, 2), hw, False, rows.scale, columns.scale
        )
        seen = resized[0].permute(1, 2, 0)
    if hw == (rows.size, columns.size):
        return seen[: hw[0], : hw[1]].contiguous()
    out = torch.full((rows.size, columns.size, 3), fill, dtype=torch.uint8)
    out[slice(*rows.out), slice(*columns.out)] = seen[: hw[0], : hw[1]]
    return out
