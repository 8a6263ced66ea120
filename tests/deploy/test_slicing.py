import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from src.deploy.detector import Detector
from src.deploy.predictor import Found
from src.deploy.slicing import MARGIN, Tile, merge, tiles, uncut
from src.structures import ClassNames, Detections


@given(
    size_hw=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    slice_px=st.integers(1, 700),
    overlap=st.floats(0, 0.9),
)
@settings(max_examples=200, deadline=None)
def test_tiles_cover_the_picture_and_overlap_as_asked(
    size_hw: tuple[int, int], slice_px: int, overlap: float
) -> None:
    if max(size_hw) / max(1, slice_px * (1 - overlap)) > 40:
        return
    found = tiles(size_hw, slice_px, overlap)
    for axis, length in ((0, size_hw[1]), (1, size_hw[0])):
        spans = sorted({(tile[axis], tile[axis + 2]) for tile in found})
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(end - start == min(slice_px, length) for start, end in spans)
        if slice_px > 1:
            for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
                assert end - start >= slice_px * overlap - 1e-6
    assert len(found) == len(set(found))


def test_a_small_picture_is_one_tile() -> None:
    assert tiles((480, 640), 640, 0.2) == [Tile(0, 0, 640, 480)]


@pytest.mark.parametrize(("slice_px", "overlap"), [(0, 0.2), (640, -0.1), (640, 0.95), (640, float("nan"))])
def test_settings_out_of_range(slice_px: int, overlap: float) -> None:
    with pytest.raises(ValueError, match="were asked for|was asked for"):
        tiles((900, 900), slice_px, overlap)


def seen_in(tile: Tile, boxes: Tensor) -> Found:
    """What a perfect detector finds in a tile: whatever of each box can be seen there, in its pixels."""
    corners = boxes.clone()
    corners[:, 0::2] = corners[:, 0::2].clamp(tile.x0, tile.x1) - tile.x0
    corners[:, 1::2] = corners[:, 1::2].clamp(tile.y0, tile.y1) - tile.y0
    there = ((corners[:, 2:] - corners[:, :2]) > 0).all(1)
    return Found(torch.full((int(there.sum()),), 0.9), torch.zeros(int(there.sum())).long(), corners[there])


@given(
    size_hw=st.tuples(st.integers(100, 2000), st.integers(100, 2000)),
    slice_px=st.integers(100, 640),
    overlap=st.floats(0.1, 0.6),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    share=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
)
@settings(max_examples=100, deadline=None)
def test_a_box_of_at_most_the_overlap_comes_back_once_wherever_it_lies(
    size_hw: tuple[int, int],
    slice_px: int,
    overlap: float,
    place: tuple[float, float],
    share: tuple[float, float],
) -> None:
    views = tiles(size_hw, slice_px, overlap)
    most = slice_px * (overlap - 2 * MARGIN) - 1e-3
    height, width = (min(most, side) * part for side, part in zip(size_hw, share, strict=True))
    y, x = place[0] * (size_hw[0] - height), place[1] * (size_hw[1] - width)
    box = torch.tensor([[x, y, x + width, y + height]])
    found = merge([uncut(seen_in(view, box), view, size_hw) for view in views])
    assert len(found.scores) == 1
    torch.testing.assert_close(found.boxes_xyxy_px, box, rtol=0, atol=1e-2)


class Bright:
    """Finds bright rectangles that stand alone along x, the cut ones too, as a perfect detector would."""

    classes = ClassNames(("bright",), (1,))
    input_hw = (128, 128)
    keep_ratio = False
    calls = 0

    def run(self, images: Tensor, sizes_hw: Tensor) -> Detections:
        self.calls += 1
        count = len(images)
        boxes, scores = torch.zeros(count, 9, 4), torch.zeros(count, 9)
        for index, (image, (height, width)) in enumerate(zip(images, sizes_hw.tolist(), strict=True)):
            lit = torch.nn.functional.pad((image[0] > 0.5).any(0).int(), (1, 1))
            starts, ends = (torch.nonzero(lit.diff() == edge)[:, 0].tolist() for edge in (1, -1))
            for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
                y = torch.nonzero((image[0, :, start:end] > 0.5).any(1))[:, 0]
                box = torch.tensor([start / 128, int(y.min()) / 128, end / 128, (int(y.max()) + 1) / 128])
                boxes[index, row] = box * torch.tensor([width, height, width, height])
                scores[index, row] = 0.9
        return Detections(torch.zeros(count, 9).long(), boxes, scores)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_boxes_on_seams_come_back_once(batch_size: int) -> None:
    pixels = np.zeros((128, 352, 3), dtype=np.uint8)
    expected = []
    for x in (4, 106, 234, 326):  # tiles begin at 0, 112 and 224, so that half of two of these is cut off
        pixels[40:60, x : x + 12] = 255
        expected.append([x, 40, x + 12, 60])
    picture, runtime = Image.fromarray(pixels), Bright()
    assert sorted({tile.x0 for tile in tiles((128, 352), 128, 0.125)}) == [0, 112, 224]
    (found,) = Detector(runtime)(picture, slice_px=128, overlap=0.125, batch_size=batch_size)
    assert runtime.calls == {1: 4, 4: 1}[batch_size]  # three tiles and the whole
    boxes = found.boxes[found.boxes[:, 0].argsort()]
    torch.testing.assert_close(boxes, torch.tensor(expected).float(), rtol=0, atol=3)
    assert len(boxes) == 4


def test_what_is_larger_than_the_overlap_is_left_to_the_whole_picture() -> None:
    pixels = np.zeros((128, 352, 3), dtype=np.uint8)
    pixels[30:90, 60:300] = 255
    (found,) = Detector(Bright())(Image.fromarray(pixels), slice_px=128, overlap=0.2)
    torch.testing.assert_close(found.boxes, torch.tensor([[60.0, 30.0, 300.0, 90.0]]), rtol=0, atol=3)


def test_a_picture_of_one_tile_is_looked_at_once() -> None:
    pixels = np.zeros((100, 120, 3), dtype=np.uint8)
    pixels[30:40, 60:90] = 255
    runtime = Bright()
    sliced = Detector(runtime)(Image.fromarray(pixels), slice_px=128)[0]
    assert runtime.calls == 1
    assert torch.equal(sliced.boxes, Detector(runtime)(Image.fromarray(pixels))[0].boxes)


def test_classes_are_merged_one_by_one() -> None:
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    parts = [
        Found(torch.tensor([score]), torch.tensor([label]), box)
        for score, label in ((0.5, 0), (0.8, 1), (0.7, 0))
    ]
    found = merge(parts)
    assert found.labels.tolist() == [1, 0]
    torch.testing.assert_close(found.scores, torch.tensor([0.8, 0.7]))
