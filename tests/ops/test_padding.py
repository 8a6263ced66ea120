"""Padding to a multiple."""

import pytest
import torch

from src.ops.padding import pad_to_multiple


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
