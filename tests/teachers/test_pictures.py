from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.teachers.pictures import to_batch

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "images",
    [
        PIXELS,
        TENSOR,
        TENSOR.float() / 255,
        list(PIXELS),
        list(TENSOR),
        [Image.fromarray(pixels) for pixels in PIXELS],
        [Image.fromarray(PIXELS[0]).convert("RGBA"), PIXELS[1]],
        (TENSOR[0].float() / 255, PIXELS[1:]),
    ],
    ids=["array", "bytes", "floats", "arrays", "tensors", "pil", "rgba and array", "tensor and batch"],
)
def test_every_form_means_the_same(images: Any) -> None:
    batch = to_batch(images)
    assert batch.dtype == torch.float32 and torch.equal(batch, TENSOR.float() / 255)


@pytest.mark.parametrize("image", [PIXELS[0], TENSOR[0], Image.fromarray(PIXELS[0])])
def test_one_picture_is_a_batch_of_one(image: Any) -> None:
    assert torch.equal(to_batch(image), TENSOR[:1].float() / 255)


def test_what_is_given_stays_as_it_is() -> None:
    floats, pixels = TENSOR.float() / 255, PIXELS.copy()
    for images in (floats, pixels):
        to_batch(images).zero_() if images is pixels else to_batch(images)
    assert np.array_equal(pixels, PIXELS) and torch.equal(floats, TENSOR.float() / 255)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (PIXELS.astype(np.float32), r"uint8 \[H, W, 3\].*float32"),
        (PIXELS[0, :, :, 0], r"not uint8 \(5, 7\)"),
        (torch.randn(1, 3, 8, 8), r"from -.*Leave the normalisation to the teacher"),
        (torch.full((1, 3, 8, 8), float("nan")), "nan"),
        (TENSOR.long(), "torch.int64"),
        (torch.rand(1, 8, 8, 3), r"not \(1, 8, 8, 3\)"),
        (Image.new("I;16", (4, 4)), "I;16"),
        ([PIXELS[0], PIXELS[0, :4]], "4x7, 5x7"),
        ([], "an empty list"),
        ("picture.jpg", "not a str"),
        (None, "not a NoneType"),
    ],
)
def test_anything_else_is_refused(bad: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_batch(bad)
