import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.data.affine import MIN_VISIBLE, RandomAffine, RandomVerticalFlip, move, moved_boxes
from src.data.picture import Picture
from src.data.transforms import Sample

sides = st.integers(24, 120)
shares = st.floats(0.0, 1.0)


def rectangle(
    hw: tuple[int, int], at: tuple[float, float], of: tuple[float, float]
) -> tuple[int, int, int, int]:
    """A box of at least 12 pixels a side in a picture, by shares of the room that there is."""
    (h, w), (down, right), (high, wide) = hw, at, of
    box_h, box_w = 12 + int(high * (h - 12)), 12 + int(wide * (w - 12))
    top, left = int(down * (h - box_h)), int(right * (w - box_w))
    return left, top, left + box_w, top + box_h


def white_on_black(hw: tuple[int, int], box: tuple[int, int, int, int]) -> Sample:
    pixels = torch.zeros(*hw, 3, dtype=torch.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return Sample(Picture.of(pixels), np.array([box], dtype=np.float32), np.array([5]))


def found(pixels: torch.Tensor) -> list[int]:
    rows, columns = np.nonzero(pixels[..., 0].numpy() >= 64)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def sliver(box: np.ndarray, hw: tuple[int, int], degrees: float) -> float:
    """How long a wedge of less than 1.5 pixels may be that the picture's edge cuts off a turned rectangle."""
    steepness = math.tan(math.radians(min(degrees % 90, -degrees % 90)))
    cut = (box[:2] <= 0).any() or box[2] >= hw[1] or box[3] >= hw[0]
    return 1.5 / steepness if cut and steepness else 0.0


@given(
    hw=st.tuples(sides, sides),
    at=st.tuples(shares, shares),
    of=st.tuples(shares, shares),
    degrees=st.floats(-180, 180),
    scale=st.floats(0.5, 1.5),
    shift=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
)
def test_a_moved_box_is_where_its_pixels_are(hw, at, of, degrees, scale, shift):
    sample = white_on_black(hw, rectangle(hw, at, of))
    moved = move(sample, math.radians(degrees), scale, (shift[0] * hw[1], shift[1] * hw[0]), 0)
    pixels = moved.picture.render()
    assert pixels.shape == (*hw, 3) and pixels.dtype == torch.uint8
    assert moved.boxes.dtype == np.float32 and len(moved.boxes) == len(moved.labels)
    if len(moved.boxes):
        (box,) = moved.boxes
        assert moved.labels.tolist() == [5]
        assert (box[:2] >= 0).all() and box[2] <= hw[1] and box[3] <= hw[0] and (box[2:] > box[:2]).all()
        if min(box[2:] - box[:2]) > 3:
            beyond = np.array(found(pixels)) - box
            assert (beyond[:2] >= -2).all() and (beyond[2:] <= 2).all()
            assert np.abs(beyond).max() <= 2 + sliver(box, hw, degrees)
    else:
        original = sample.boxes[0]
        area = float((original[2:] - original[:2]).prod()) * scale**2
        # the box around a turned rectangle is larger than it, so that less than the share of it is seen
        assert (pixels[..., 0] > 127).sum() <= 2 * MIN_VISIBLE * area + 20


@given(
    hw=st.tuples(sides, sides),
    at=st.tuples(shares, shares),
    of=st.tuples(shares, shares),
    degrees=st.floats(-180, 180),
    shift=st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2)),
)
def test_moved_boxes_equal_those_of_many_points(hw, at, of, degrees, shift):
    box = np.array([rectangle(hw, at, of)], dtype=np.float64)
    angle = math.radians(degrees)
    cos, sin = 1.3 * math.cos(angle), 1.3 * math.sin(angle)
    matrix = np.array(((cos, -sin, shift[0] * hw[1]), (sin, cos, shift[1] * hw[0])))
    (moved,), (kept,) = moved_boxes(box, matrix, hw)
    x, y = (np.linspace(box[0, k], box[0, k + 2], 161) for k in (0, 1))
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2) @ matrix[:, :2].T + matrix[:, 2]
    inside = points[((points >= 0) & (points <= (hw[1], hw[0]))).all(1)]
    area = np.ptp(points, axis=0).prod()
    if not len(inside):
        assert not kept or (moved[2:] - moved[:2]).prod() < 0.05 * area
        return
    step = 1.3 * max(hw) / 160 * math.sqrt(2)
    expected = np.concatenate((inside.min(0), inside.max(0)))
    share = np.ptp(inside, axis=0).prod() / area
    if share > MIN_VISIBLE + 0.05:
        assert kept
    if kept and share > 0.02:  # points tell little of a sliver
        # a corner cut off by the picture's edge ends a sharp angle at most a few points away
        assert np.abs(moved - expected).max() <= 3 * step
        assert (expected[:2] >= moved[:2] - 1e-6).all() and (expected[2:] <= moved[2:] + 1e-6).all()


def test_by_hand():
    """A quarter turn about the origin takes (x, y) to (-y, x); shifted by the height 10, (10 - y, x)."""
    matrix = np.array(((0.0, -1.0, 10.0), (1.0, 0.0, 0.0)))
    boxes = np.array([(1.0, 2, 4, 3), (0, 0, 20, 10), (19.9, 0, 20, 10)])
    moved, kept = moved_boxes(boxes, matrix, (20, 10))
    np.testing.assert_allclose(moved, [(7, 1, 8, 4), (0, 0, 10, 20), (0, 19.9, 10, 20)])
    assert kept.all()
    _, kept = moved_boxes(boxes, matrix + np.array(((0, 0, 0), (0, 0, 18.5))), (20, 10))
    assert kept.tolist() == [True, False, False]  # of 3 pixels one half is left, of 20 one and a half, none
    assert moved_boxes(boxes[:0], matrix, (20, 10))[0].shape == (0, 4)


def test_nothing_drawn_changes_nothing():
    sample = white_on_black((40, 60), (10, 10, 30, 30))
    same = RandomAffine(degrees=0, translate=(0, 0), scale=(1, 1))(sample)
    assert torch.equal(same.picture.render(), sample.picture.render())
    np.testing.assert_allclose(same.boxes, sample.boxes)
    assert RandomAffine(p=0.0)(sample) is sample
    empty = sample._replace(boxes=sample.boxes[:0], labels=sample.labels[:0])
    assert RandomAffine()(empty).boxes.shape == (0, 4)


def test_every_knob_changes_the_picture():
    torch.manual_seed(0)
    sample = white_on_black((40, 60), (10, 10, 30, 30))
    still = {"degrees": 0.0, "translate": (0.0, 0.0), "scale": (1.0, 1.0)}
    for knob in (
        {"degrees": 30.0},
        {"translate": (0.4, 0.0)},
        {"translate": (0.0, 0.4)},
        {"scale": (0.5, 0.6)},
    ):
        torch.manual_seed(1)
        moved = RandomAffine(**(still | knob))(sample)
        assert not torch.equal(moved.picture.render(), sample.picture.render())
    grey = RandomAffine(**(still | {"scale": (0.5, 0.5)}), fill=77)(sample).picture.render()
    assert (grey[0] == 77).all() and (grey[:, 0] == 77).all()


@pytest.mark.parametrize(
    "knob",
    [{"degrees": -1.0}, {"degrees": 181.0}, {"p": 2.0}, {"fill": 256}, {"translate": (0.1, 1.5)},
     {"scale": (0.0, 1.0)}, {"scale": (1.5, 0.5)}],
)  # fmt: skip
def test_wrong_knobs_are_refused(knob):
    with pytest.raises(ValueError, match=f"RandomAffine.*{next(iter(knob))}"):
        RandomAffine(**knob)


@given(hw=st.tuples(sides, sides), at=st.tuples(shares, shares), of=st.tuples(shares, shares))
def test_a_vertical_flip_takes_the_box_along(hw, at, of):
    sample = white_on_black(hw, rectangle(hw, at, of))
    flipped = RandomVerticalFlip(p=1.0)(sample)
    assert found(flipped.picture.render()) == flipped.boxes[0].tolist()
    back = RandomVerticalFlip(p=1.0)(flipped)
    assert torch.equal(back.picture.render(), sample.picture.render())
    assert (back.boxes == sample.boxes).all() and RandomVerticalFlip(p=0.0)(sample) is sample
    with pytest.raises(ValueError, match="RandomVerticalFlip: p is 2"):
        RandomVerticalFlip(p=2)
