"""Where the unit or the order of a box's numbers is in doubt, over whole files."""

import numpy as np
import pytest

from src.data.doctor import Findings
from src.data.doctor.boxes import check_boxes

N, H, W = 40, 300, 400


def found(boxes):
    """The findings of these boxes [N, 4], each in a picture of its own."""
    findings = Findings("x")
    sizes = np.tile([H, W], (len(boxes), 1))
    rows = np.arange(len(boxes))
    kept, _ = check_boxes(np.array(boxes, float), sizes, rows, rows, str, findings, drop_empty=False)
    return {f.code: f.times for f in findings.all()}, len(kept)


@pytest.fixture
def corners():
    rng = np.random.default_rng(0)
    first = rng.uniform(0, [W - 40, H - 40], (N, 2))
    return np.concatenate((first, first + rng.uniform(5, 40, (N, 2))), axis=1)


def test_corners_are_told_from_sizes(corners):
    as_sizes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
    assert found(as_sizes) == ({}, N)
    codes, kept = found(corners)
    assert set(codes) == {"boxes-as-corners"} and kept == 0


def test_a_degenerate_box_among_corners_hides_nothing(corners):
    corners[3, 2:] = corners[3, :2]
    assert set(found(corners)[0]) == {"boxes-as-corners"}


def test_boxes_of_nearly_the_whole_picture_may_leave_it(corners):
    del corners
    codes, kept = found([[k % 7, k % 5, W, H] for k in range(N)])
    assert set(codes) == {"box-partly-outside"} and kept == N


def test_corners_of_objects_at_the_upper_left_are_told_from_sizes():
    rng = np.random.default_rng(0)
    first, size = rng.uniform(0, [W * 0.43, H * 0.42], (200, 2)), rng.uniform(0.2, 0.45, (200, 2)) * [W, H]
    assert found(np.concatenate((first, size), axis=1)) == ({}, 200)
    corners = np.concatenate((first, first + size), axis=1)
    far = (first + corners[:, 2:] > [1.1 * W, 1.1 * H]).any(axis=1).mean()
    assert 0.05 < far < 0.3 and set(found(corners)[0]) == {"boxes-as-corners"}


@pytest.mark.parametrize("count", [40, 400])
def test_large_boxes_in_the_middle_are_taken_as_sizes(count):
    rng = np.random.default_rng(0)
    size = rng.uniform(0.6, 1, (count, 2)) * [W, H]
    boxes = np.concatenate((([W, H] - size) / 2, size), axis=1)
    assert found(boxes) == ({}, count)
    boxes[: count // 40, 0] = W / 2  # some are annotated beyond the edge by far
    codes, kept = found(boxes)
    assert set(codes) == {"box-partly-outside"} and kept == count


def test_two_boxes_are_too_few_to_suspect(corners):
    far = corners[(corners[:, 0] > W / 2)][:2]
    assert set(found(far)[0]) <= {"box-partly-outside"}


def test_shares_are_told_from_small_boxes():
    shares = np.random.default_rng(1).uniform(0.01, 0.99, (N, 4))
    assert set(found(shares)[0]) == {"boxes-normalised"}
    shares[0] = [10, 20, 30, 40]
    assert set(found(shares)[0]) == {"boxes-normalised"}, "one box in pixels hides nothing"
    shares[: N // 5] = [10, 20, 30, 40] + np.arange(N // 5)[:, None]
    assert found(shares)[0] == {"boxes-tiny": N - N // 5}
    shares[: N // 2] = [10, 20, 30, 40] + np.arange(N // 2)[:, None]
    codes, kept = found(shares)
    assert codes == {"box-tiny": N - N // 2} and kept == N
