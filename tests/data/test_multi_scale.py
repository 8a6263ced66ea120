from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.data import draw_size, sizes_for, to_device_images


def test_the_list_for_640_is_the_recipes():
    sides = [480, 512, 544, 576, 608, 640, 640, 640, 640, 672, 704, 736, 768, 800]
    assert sizes_for((640, 640), 4) == [(s, s) for s in sides]


def test_other_bases():
    assert sizes_for((160, 160), 2) == [(128, 128), (160, 160), (160, 160), (192, 192)]
    assert sizes_for((320, 640), 1)[0] == (256, 480)
    assert sizes_for((300, 500), 1)[2:5] == [(256, 448), (288, 480), (300, 500)]
    with pytest.raises(ValueError, match="base_size_repeat is 0"):
        sizes_for((640, 640), 0)


@given(st.integers(32, 1500), st.integers(32, 1500), st.integers(1, 5))
def test_sizes_are_the_base_or_multiples_of_32_near_it(h, w, repeat):
    sizes = sizes_for((h, w), repeat)
    assert sizes.count((h, w)) >= repeat
    for size in sizes:
        assert size == (h, w) or all(s % 32 == 0 and s >= 32 for s in size)
        longer = max(range(2), key=lambda k: (h, w)[k])
        assert 0.75 <= size[longer] / (h, w)[longer] <= 1.25


def test_draws_are_pure_and_even():
    sizes = sizes_for((640, 640), 3)
    drawn = [draw_size(sizes, 1, step) for step in range(2600)]
    assert drawn == [draw_size(sizes, 1, step) for step in range(2600)]
    assert drawn != [draw_size(sizes, 2, step) for step in range(2600)]
    counts = Counter(drawn)
    assert set(counts) == set(sizes) and abs(counts[(640, 640)] - 600) < 100


def test_pictures_become_floats_between_0_and_1_at_the_size_asked_for():
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    before = images.clone()
    for size in (None, (32, 64)):
        torch.testing.assert_close(to_device_images(images, size), images / 255)
    small = to_device_images(images, (16, 32))
    assert small.shape == (2, 3, 16, 32) and small.dtype == torch.float32
    assert small.min() >= 0 and small.max() <= 1 and torch.equal(images, before)


def test_shrinking_averages_and_keeps_places():
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[..., ::2] = 255  # nearest would give all white or all black
    assert to_device_images(images, (32, 32))[..., 2:-2].sub(0.5).abs().max() < 0.05
    square = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    square[..., 16:48, 8:24] = 255
    bright = to_device_images(square, (96, 96))[0, 0] > 0.5
    rows, columns = bright.nonzero().unbind(1)
    assert [rows.min(), rows.max() + 1, columns.min(), columns.max() + 1] == [24, 72, 12, 36]


def test_a_batch_as_loaded_lies_plane_by_plane_on_the_device():
    images = torch.randint(0, 256, (2, 20, 30, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    for size_hw in (None, (40, 60)):
        assert to_device_images(images, size_hw).is_contiguous()
    assert torch.equal(to_device_images(images), to_device_images(images.contiguous()))
