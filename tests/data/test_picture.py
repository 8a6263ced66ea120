"""What transforms give at once is what they give one by one, and that is what torchvision's give."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from src.data import build_pipeline
from src.data.colours import Colours, distort
from src.data.picture import Picture
from src.data.transforms import RandomZoomOut, Sample

H, W = 90, 120
STRONG = [
    ("RandomPhotometricDistort", {}),
    ("RandomZoomOut", {"fill": 114}),
    ("RandomIoUCrop", {"p": 0.8}),
    ("SanitizeBoundingBoxes", {}),
    ("RandomHorizontalFlip", {}),
    ("Resize", {}),
]
ORDERS = {
    "D-FINE's": STRONG,
    "colours last": [*STRONG[1:], STRONG[0]],
    "resize first": [STRONG[-1], *STRONG[:-1]],
    "crop before zoom, twice": [
        STRONG[2],
        STRONG[1],
        STRONG[2],
        STRONG[5],
        ("PadToSize", {"size": (200, 200)}),
    ],
    "no resize": STRONG[:-1],
}


def _pixels():
    noise = torch.rand(1, 3, H // 6, W // 6, generator=torch.Generator().manual_seed(1))
    pixels = torch.nn.functional.interpolate(noise, size=(H, W), mode="bicubic").clamp(0, 1)
    return (pixels[0].permute(1, 2, 0) * 255).to(torch.uint8).contiguous()


def _sample():
    boxes = np.array([[10, 10, 50, 40], [60, 30, 119, 85], [5, 60, 30, 89.5]], dtype=np.float32)
    return Sample(Picture.of(_pixels()), boxes, np.arange(3))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [(64, 96), (160, 110)])
def test_at_once_is_one_by_one(order, size):
    pipeline = build_pipeline(ORDERS[order], (), size)
    means = []
    for seed in range(25):
        torch.manual_seed(seed)
        fused = _sample()
        for _, op in pipeline.ops:
            fused = op(fused)
        torch.manual_seed(seed)
        single = _sample()
        for _, op in pipeline.ops:
            single = op(single)
            single = single._replace(picture=Picture.of(single.picture.render()))
        assert np.array_equal(fused.boxes, single.boxes) and np.array_equal(fused.labels, single.labels)
        found, expected = fused.picture.render(), single.picture.render()
        assert found.shape == expected.shape == (*fused.picture.hw, 3)
        difference = (found.float() - expected.float()).abs()
        # colours changed after shrinking instead of before it, and, at the edge of a picture that is small on
        # its canvas, one output pixel of another colour; nothing at all is other without colours
        assert difference.mean() < 1.5, (seed, fused.picture)
        assert (difference > 10).float().mean() < 0.04, (seed, fused.picture)
        means.append(float(difference.mean()))
    assert sum(means) / len(means) < 0.2


def _torchvisions(picture):
    """The same changes by torchvision, one after the other, with the whole canvas laid out."""
    image = picture.pixels.permute(2, 0, 1)
    if picture.colours:
        image = distort(picture.pixels, picture.colours, picture.pixels).permute(2, 0, 1)
    top, left, h, w = picture.frame
    margin = [max(0, -left), max(0, -top), max(0, left + w - W), max(0, top + h - H)]
    image = F.pad(image, margin, fill=picture.fill)
    image = F.crop(image, top + margin[1], left + margin[0], h, w)
    if picture.mirrored:
        image = F.horizontal_flip(image)
    if picture.size_hw:
        image = F.resize(image, list(picture.size_hw), antialias=True)
    return image.permute(1, 2, 0)


FRAMES = {
    "whole": (0, 0, H, W),
    "inside": (11, 23, 51, 67),
    "one pixel": (40, 50, 1, 1),
    "canvas": (-37, -101, 300, 400),
    "over the left": (20, -31, 50, 93),
    "over the right": (-9, 70, 77, 81),
    "over the corner": (60, 80, 97, 111),
    "beside": (0, 200, 50, 50),
    "beside the left": (0, -90, 50, 50),
    "above": (-90, 0, 50, 50),
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("size", [None, (64, 64), (100, 37), (231, 317), (299, 401)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_any_frame_is_torchvisions(frame, size, mirrored):
    picture = Picture(_pixels(), FRAMES[frame], fill=77, mirrored=mirrored, size_hw=size, stage=5)
    expected = _torchvisions(picture)
    difference = (picture.render().float() - expected.float()).abs()
    if size is None or frame in ("whole", "inside", "one pixel", "beside", "beside the left", "above"):
        assert difference.max() == 0
    else:  # the pixels begin at most a thirtieth of an output pixel beside their place
        assert difference.mean() < 0.25 and difference.max() <= 8


@pytest.mark.parametrize("frame", ["whole", "inside", "canvas", "over the corner"])
def test_colours_change_the_pixels_and_not_the_canvas(frame):
    colours = Colours(brightness=1.1, contrast=0.6, saturation=1.2, hue=0.04)
    picture = Picture(_pixels(), FRAMES[frame], colours, fill=0, size_hw=(64, 80), stage=5)
    found = picture.render()
    difference = (found.float() - _torchvisions(picture).float()).abs()
    assert difference.mean() < 1.5
    if frame == "canvas":
        assert (found[0] == 0).all() and (found[:, -1] == 0).all() and found.max() > 100


def test_nothing_to_do_gives_the_pixels_themselves_and_work_leaves_them_alone():
    pixels = _pixels()
    before = pixels.clone()
    assert Picture.of(pixels).render() is pixels
    for picture in (
        Picture.of(pixels).distort(Colours(brightness=0.5)),
        Picture.of(pixels).distort(Colours(brightness=0.5)).resize((20, 20)),
        Picture.of(pixels).flip().crop((0, 0, 20, 20)),
    ):
        picture.render().zero_()
        assert torch.equal(pixels, before)


def test_zoom_outs_are_torchvisions_one_for_one():
    theirs, ours = v2.RandomZoomOut(p=1.0), RandomZoomOut(p=1.0)
    image = torch.zeros(3, H, W, dtype=torch.uint8)
    for seed in range(50):
        torch.manual_seed(seed)
        torch.rand(1)  # whether at all
        left, top, right, bottom = theirs.make_params([image])["padding"]
        torch.manual_seed(seed)
        zoomed = ours(_sample())
        assert zoomed.picture.frame == (-top, -left, top + H + bottom, left + W + right)
        assert np.array_equal(zoomed.boxes, _sample().boxes + np.array([left, top, left, top]))
