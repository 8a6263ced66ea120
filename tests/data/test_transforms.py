import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from src.data import build_pipeline
from src.data.picture import Picture
from src.data.statements import ConvertBoxes, ConvertPILImage, Normalize
from src.data.transforms import (
    PadToSize,
    RandomHorizontalFlip,
    RandomIoUCrop,
    RandomPhotometricDistort,
    RandomZoomOut,
    Resize,
    Sample,
    SanitizeBoundingBoxes,
)
from src.structures import Target

BOX = (30, 20, 70, 60)
H, W = 100, 140


def _picture(box=BOX):
    """Black, with one white rectangle where the box is."""
    pixels = np.zeros((H, W, 3), dtype=np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = 255
    return Image.fromarray(pixels)


def _target(boxes=(BOX,), labels=(3,)):
    return Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        7,
        (H, W),
    )


def _run(ops, image=None, target=None, strong=True, size=(96, 128), keep_ratio=False):
    pipeline = build_pipeline(ops, (), size, keep_ratio=keep_ratio)
    return pipeline(image or _picture(), target or _target(), strong=strong)


def _found(image, level=128):
    """Box of the bright pixels."""
    rows, columns = np.nonzero(image.float().mean(0).numpy() >= level)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


MOVING = {
    "zoom out": [("RandomZoomOut", {"p": 1.0})],
    "crop": [("RandomIoUCrop", {"p": 1.0})],
    "flip": [("RandomHorizontalFlip", {"p": 1.0})],
    "resize": [("Resize", {"size": (160, 110)})],
    "pad": [("PadToSize", {"size": (150, 150)})],
    "all": [
        ("RandomZoomOut", {"p": 0.5}),
        ("RandomIoUCrop", {"p": 0.8}),
        ("SanitizeBoundingBoxes", {}),
        ("RandomHorizontalFlip", {}),
        ("Resize", {}),
        ("PadToSize", {"size": (100, 150)}),
        ("ConvertPILImage", {}),
    ],
}


@pytest.mark.parametrize("name", MOVING)
def test_boxes_follow_the_pixels(name):
    kept, moved = 0, 0
    for seed in range(25):
        torch.manual_seed(seed)
        image, target = _run(MOVING[name])
        assert image.dtype == torch.uint8 and image.shape[0] == 3
        assert target.image_id == 7 and target.size_hw == (H, W)
        if not len(target.labels):
            continue
        kept += 1
        (box,) = target.boxes_xyxy_px.tolist()
        moved += box != list(BOX) or tuple(image.shape[1:]) != (H, W)
        assert np.abs(np.array(_found(image)) - box).max() <= 1.0
        assert target.labels.tolist() == [3]
    assert kept >= 20 and moved >= 10


def test_outputs_have_the_size_asked_for():
    assert _run([("Resize", {})])[0].shape == (3, 96, 128)
    assert _run([("Resize", {"size": (64, 32)})])[0].shape == (3, 64, 32)
    assert _run([("PadToSize", {})], size=(120, 160))[0].shape == (3, 120, 160)


def test_padding_is_at_the_right_and_bottom_in_the_grey_level_asked_for():
    image, target = _run([("PadToSize", {"size": (110, 150), "fill": 9})])
    assert (image[:, H:] == 9).all() and (image[:, :, W:] == 9).all()
    assert target.boxes_xyxy_px.tolist() == [list(BOX)]
    with pytest.raises(ValueError, match="100x140 .* does not fit in 50x150; put a Resize"):
        _run([("PadToSize", {"size": (50, 150)})])


def test_zoom_out_fills_with_the_grey_level_within_its_range():
    torch.manual_seed(0)
    image, _ = _run([("RandomZoomOut", {"p": 1.0, "fill": 77, "side_range": (2.0, 2.5)})])
    assert 2 * H <= image.shape[1] <= 2.5 * H
    assert (image == 77).float().mean() > 0.6


def test_crop_knobs_bound_the_crop():
    for seed in range(10):
        torch.manual_seed(seed)
        image, _ = _run([("RandomIoUCrop", {"p": 1.0, "min_scale": 0.5, "max_scale": 0.8})])
        whole = tuple(image.shape[1:]) == (H, W)
        assert whole or (
            0.5 * H - 1 <= image.shape[1] <= 0.8 * H and 0.5 * W - 1 <= image.shape[2] <= 0.8 * W
        )
    torch.manual_seed(0)
    image, _ = _run([("RandomIoUCrop", {"p": 1.0, "sampler_options": (1.0,)})])
    assert image.shape == (3, H, W)


def test_crop_drops_labels_with_their_boxes():
    boxes = [(0, 0, 10, 10), (60, 40, 80, 60), (130, 90, 140, 100)]
    counts = set()
    for seed in range(20):
        torch.manual_seed(seed)
        _, target = _run([("RandomIoUCrop", {"p": 1.0})], target=_target(boxes, (0, 1, 2)))
        counts.add(len(target.labels))
        assert len(target.boxes_xyxy_px) == len(target.labels)
    assert len(counts) > 1 and 0 not in counts


def test_crops_are_distributed_as_torchvisions():
    boxes = torch.tensor([[10.0, 10, 60, 90], [100, 20, 139, 70], [30, 90, 50, 100]])
    image = tv_tensors.Image(torch.zeros(3, H, W, dtype=torch.uint8))
    picture = Picture.of(torch.zeros(H, W, 3, dtype=torch.uint8))
    wrapped = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(H, W))
    theirs, ours = v2.RandomIoUCrop(), RandomIoUCrop(p=1.0)
    torch.manual_seed(0)
    drawn = []
    for _ in range(300):
        out, their_boxes = theirs(image, wrapped)
        sample = ours(Sample(picture, boxes.numpy(), np.arange(3)))
        num_theirs = (their_boxes[:, 2:] > their_boxes[:, :2]).all(-1).sum()
        drawn.append([*out.shape[1:], int(num_theirs), *sample.picture.hw, len(sample.labels)])
    # heights, widths and numbers of boxes: Kolmogorov and Smirnov's test of two samples
    theirs_drawn, ours_drawn = np.array(drawn).T.reshape(2, 3, -1)
    for one, other in zip(theirs_drawn, ours_drawn, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 0.01
        assert stats.ks_2samp(one, other + 4).pvalue < 0.01  # so many draws tell four pixels apart


def test_zoom_outs_and_flips_are_distributed_as_torchvisions():
    whole = torch.tensor([[0.0, 0, W - 20, H]])  # of the picture, and so says where it lies
    image = tv_tensors.Image(torch.zeros(3, H, W, dtype=torch.uint8))
    wrapped = tv_tensors.BoundingBoxes(whole, format="XYXY", canvas_size=(H, W))
    sample = Sample(Picture.of(torch.zeros(H, W, 3, dtype=torch.uint8)), whole.numpy(), np.arange(1))
    torch.manual_seed(0)
    drawn = []
    for _ in range(2000):
        out, box = v2.RandomZoomOut()(image, wrapped)
        flipped = v2.RandomHorizontalFlip()(wrapped)[0, 0] == 20
        drawn.append([*out.shape[1:], *box[0, :2], flipped])
        zoomed = RandomZoomOut()(sample)
        flipped = RandomHorizontalFlip()(sample).boxes[0, 0] == 20
        drawn.append([*zoomed.picture.hw, *zoomed.boxes[0, :2], flipped])
    chances, shapes = [], []
    for rows in (drawn[::2], drawn[1::2]):
        height, width, left, top, flipped = np.array(rows, dtype=np.float64).T
        larger = height > H
        across, down = (left / (width - W + 1e-9))[larger], (top / (height - H + 1e-9))[larger]
        chances.append([larger.astype(float), flipped])
        # its sides, and which shares of the room that it leaves are on the left and above
        shapes.append([height[larger], width[larger], across, down, across - down])
    for one, other in zip(*chances, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 0.01  # 2,000 draws tell 0.5 from 0.44
    for one, other in zip(*shapes, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 0.01
        assert stats.ks_2samp(one, 1.2 * other).pvalue < 0.01  # so many draws tell a fifth apart


@pytest.mark.parametrize(
    "op", ["RandomZoomOut", "RandomIoUCrop", "RandomHorizontalFlip", "RandomPhotometricDistort"]
)
def test_probability_0_changes_nothing_and_1_does(op):
    pixels = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    same = {}
    for p in (0.0, 1.0):
        unchanged = 0
        for seed in range(8):
            torch.manual_seed(seed)
            out, _ = _run([(op, {"p": p})], image=image)
            unchanged += torch.equal(out, F.pil_to_tensor(image))
        same[p] = unchanged
    assert same[0.0] == 8 and same[1.0] < 4


def test_photometric_knobs_bound_the_change():
    image = Image.new("RGB", (8, 8), (100, 100, 100))
    still = {"p": 1.0, "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": (0.0, 0.0)}
    torch.manual_seed(0)
    out, target = _run([("RandomPhotometricDistort", {**still, "brightness": (0.5, 0.5)})], image=image)
    assert (out == 50).all() and target.boxes_xyxy_px.shape == (0, 4)  # the box lies outside of 8x8
    out, _ = _run([("RandomPhotometricDistort", {**still, "brightness": (2.0, 2.0)})], image=image)
    assert (out == 200).all()


def test_sanitise_clips_and_keeps_labels_in_step():
    boxes = [(-10, 10, 20, 30), (50, 50, 50.5, 80), (60, 60, 60, 70), (10, 95, 30, 140), (139.5, 0, 300, 50)]
    target = _target(boxes, range(5))
    assert _run([("SanitizeBoundingBoxes", {})], target=target)[1].labels.tolist() == [0, 3]
    assert _run([("SanitizeBoundingBoxes", {"min_size": 0})], target=target)[1].labels.tolist() == [
        0,
        1,
        3,
        4,
    ]
    out = _run([("SanitizeBoundingBoxes", {"min_size": 6})], target=target)[1]
    assert out.labels.tolist() == [0] and out.boxes_xyxy_px.tolist() == [[0, 10, 20, 30]]


@pytest.mark.parametrize("name", MOVING)
def test_pictures_without_objects_and_of_one_pixel_pass(name):
    empty = _target((), ())
    image, target = _run(MOVING[name], target=empty)
    assert target.boxes_xyxy_px.shape == (0, 4) and target.labels.shape == (0,)
    dot = Image.new("RGB", (1, 1))
    torch.manual_seed(0)
    _, target = _run(MOVING[name], image=dot, target=_target(((0, 0, 1, 1),)))
    assert len(target.labels) <= 1
    assert image.ndim == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomZoomOut(p=2), "p is 2"),
        (lambda: RandomHorizontalFlip(p=-0.1), "p is -0.1"),
        (lambda: RandomPhotometricDistort(p=1.1), "p is 1.1"),
        (lambda: RandomIoUCrop(p=3), "p is 3"),
        (lambda: RandomIoUCrop(min_scale=0.9, max_scale=0.5), "min_scale"),
        (lambda: RandomIoUCrop(sampler_options=(0.1, 0.5)), "leave the picture"),
        (lambda: SanitizeBoundingBoxes(min_size=-1), "min_size is -1"),
        (Resize, "size is None"),
        (lambda: Resize(size=(0, 5)), "size is"),
        (PadToSize, "size is None"),
        (lambda: PadToSize(size=(5, 5), fill=256), "PadToSize: fill is 256; a grey level from 0 to 255"),
        (lambda: PadToSize(size=(5, 5), fill=-1), "fill is -1"),
        (lambda: RandomZoomOut(fill=300), "RandomZoomOut: fill is 300"),
        (lambda: ConvertPILImage(dtype="float16"), "float16.*float32"),
        (lambda: ConvertPILImage(scale=False), "scale False"),
        (lambda: ConvertBoxes(fmt="xyxy"), "xyxy.*cxcywh"),
        (lambda: ConvertBoxes(normalize=False), "normalize False"),
        (lambda: Normalize(mean=(0.5, 0.5, 0.5), std=(0.0, 1.0, 1.0)), "positive deviations"),
    ],
)
def test_values_that_are_not_allowed_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("size", [(160, 110), (96, 300)])
def test_boxes_follow_the_pixels_of_a_padded_picture(size):
    image, target = _run([("Resize", {})], size=size, keep_ratio=True)
    assert tuple(image.shape[1:]) == size
    np.testing.assert_allclose(target.boxes_xyxy_px[0], _found(image), atol=1.5)
