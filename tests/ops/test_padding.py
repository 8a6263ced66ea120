"""Padding to a multiple and to a shape."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.ops.padding import framed, pad_to_multiple


@pytest.mark.parametrize(
    ("size_hw", "padded_hw"),
    [((64, 96), (64, 96)), ((300, 500), (320, 512)), ((1, 33), (32, 64)), ((608, 624), (608, 640))],
)
def test_pads_right_and_bottom_by_repetition(size_hw, padded_hw):
    images = torch.rand(2, 3, *size_hw)
    padded, extent_hw = pad_to_multiple(images, 32)
    assert padded.shape[-2:] == padded_hw
    assert extent_hw == (size_hw[0] / padded_hw[0], size_hw[1] / padded_hw[1])
    torch.testing.assert_close(padded[..., : size_hw[0], : size_hw[1]], images)
    torch.testing.assert_close(padded[..., -1, -1], images[..., -1, -1])
    torch.testing.assert_close(padded[..., -1, : size_hw[1]], images[..., -1, :])


SIDE = st.integers(1, 2000)


@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE))
def test_a_frame_is_the_smallest_of_its_shape(size_hw: tuple[int, int], like_hw: tuple[int, int]) -> None:
    height, width = framed(size_hw, like_hw)
    assert height >= size_hw[0] and width >= size_hw[1]
    assert height == size_hw[0] or width == size_hw[1]
    ratio = like_hw[0] / like_hw[1]
    assert abs(height - max(size_hw[0], size_hw[1] * ratio)) <= 0.5
    assert abs(width - max(size_hw[1], size_hw[0] / ratio)) <= 0.5
