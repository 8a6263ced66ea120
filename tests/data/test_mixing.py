"""Mosaic, MixUp and CopyBlend: boxes follow pixels, and nothing but (seed, epoch, index) is drawn from."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.core import MixingSettings
from src.data import Chances, Mixing, build_pipeline, build_train_loader
from src.data.affine import RandomAffine
from src.data.mixing import MIN_PASTED_AREA, blend, copy_blend, mix_up
from src.data.mosaic import mosaic
from src.data.partners import Stored
from src.structures import Target

COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)])
SIZE = (64, 96)
PIPELINE = (("RandomZoomOut", {}), ("RandomHorizontalFlip", {}), ("Resize", {}))

sides = st.integers(20, 120)
shares = st.floats(0.0, 1.0)
places = st.tuples(shares, shares, shares, shares)


def rectangle(hw, place):
    """A box of at least a third of the sides."""
    (h, w), (down, right, high, wide) = hw, place
    box_h, box_w = h // 3 + int(high * (h - h // 3)), w // 3 + int(wide * (w - w // 3))
    top, left = int(down * (h - box_h)), int(right * (w - box_w))
    return left, top, left + box_w, top + box_h


def picture(hw, place, label):
    """A black picture with one rectangle in its label's colour; with none for label 0."""
    pixels = torch.zeros(*hw, 3, dtype=torch.uint8)
    boxes = [rectangle(hw, place)] if label else []
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = torch.from_numpy(COLOURS[label])
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return Stored(pixels, Target(boxes, torch.full((len(boxes),), label), label, hw))


def transformed(stored):
    return stored.pixels.permute(2, 0, 1), stored.target


def bounds(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def assert_inside(boxes, hw):
    boxes = np.asarray(boxes)
    assert (boxes >= 0).all() and (boxes[:, 0::2] <= hw[1]).all() and (boxes[:, 1::2] <= hw[0]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@given(
    hws=st.tuples(*[st.tuples(sides, sides)] * 4),
    four=st.tuples(*[places] * 4),
    labels=st.permutations((0, 1, 2, 3)),
    scale=st.floats(0.5, 1.5),
    degrees=st.floats(0, 45),
    seed=st.integers(0, 2**32),
)
def test_a_mosaics_boxes_are_where_their_colours_are(hws, four, labels, scale, degrees, seed):
    pictures = [picture(*args) for args in zip(hws, four, labels, strict=True)]
    torch.manual_seed(seed)
    whole = mosaic(pictures, 96, RandomAffine(degrees=degrees, scale=(scale, scale)))
    pixels = whole.picture.render()
    assert pixels.dtype == torch.uint8 and max(pixels.shape[:2]) <= 2 * 96
    assert_inside(whole.boxes, pixels.shape[:2])
    assert len(whole.labels) == len(whole.boxes) == len(set(whole.labels.tolist()))
    nearest = np.square(pixels.numpy()[..., None, :] - COLOURS.astype(float)).sum(-1).argmin(-1)
    far = np.array(pixels.shape[1::-1])
    for box, label in zip(whole.boxes, whole.labels.tolist(), strict=True):
        if min(box[2:] - box[:2]) > 3:
            beyond = np.array(bounds(nearest == label)) - box
            assert (beyond[:2] >= -2).all() and (beyond[2:] <= 2).all()
            # what the edge cuts off a turned rectangle may be thinner than a pixel: see test_affine.py
            cut = (box[:2] <= 0).any() or (box[2:] >= far).any()
            assert cut or np.abs(beyond).max() <= 2
    for label in {1, 2, 3} - set(whole.labels.tolist()):
        # dropped: of its rectangle, at least a ninth of a tile of 96 pixels by 16, little is seen
        assert (nearest == label).mean() < 0.1


def test_a_mosaic_by_hand():
    """Four of 10 x 20 (height x width), tiles of 20 around the cross at (20, 10)."""
    pictures = [picture((10, 20), (0.0, 0.0, 0.0, 0.0), 1)] * 2 + [picture((20, 10), (1.0,) * 4, 2)] * 2
    still = RandomAffine(degrees=0, translate=(0, 0), scale=(1, 1))
    whole = mosaic(pictures, 20, still)
    assert whole.picture.hw == (30, 40)
    assert whole.labels.tolist() == [1, 1, 2, 2]
    assert whole.boxes.tolist() == [[0, 0, 6, 3], [20, 0, 26, 3], [10, 10, 20, 30], [20, 10, 30, 30]]


def test_a_mosaic_of_pictures_without_objects_has_none():
    whole = mosaic([picture((30, 40), (0.0,) * 4, 0)] * 4, 32, RandomAffine())
    assert whole.boxes.shape == (0, 4) and whole.boxes.dtype == np.float32 and whole.labels.shape == (0,)


@given(
    hw=st.tuples(sides, sides),
    two=st.tuples(places, places),
    labels=st.tuples(st.sampled_from((0, 1)), st.sampled_from((0, 2))),
    share=st.floats(0.3, 0.7),
)
def test_mixup_has_the_boxes_of_both_where_their_blended_colours_are(hw, two, labels, share):
    first, second = (transformed(picture(hw, *args)) for args in zip(two, labels, strict=True))
    before = [x[0].clone() for x in (first, second)]
    pixels, target = mix_up(first, second, share)
    assert pixels.dtype == torch.uint8 and target.image_id == labels[0]
    assert target.labels.tolist() == [label for label in labels if label]
    for box, label in zip(target.boxes_xyxy_px.tolist(), target.labels.tolist(), strict=True):
        channel = pixels[label - 1].numpy()
        assert abs(int(channel.max()) - 255 * (share if label == 2 else 1 - share)) <= 1
        assert bounds(channel > 64) == box
    assert torch.equal(first[0], before[0]) and torch.equal(second[0], before[1])


@given(
    hw=st.tuples(sides, sides),
    two=st.tuples(places, places),
    labels=st.tuples(st.sampled_from((0, 1)), st.sampled_from((0, 2))),
    shift=shares,
    seed=st.integers(0, 2**32),
)
def test_copyblend_brings_the_second_ones_objects_with_their_boxes(hw, two, labels, shift, seed):
    first, second = (transformed(picture(hw, *args)) for args in zip(two, labels, strict=True))
    # boxes with fractions, as after a resize, that do not leave the picture
    boxes = (second[1].boxes_xyxy_px + shift).clamp(max=torch.tensor((hw[1], hw[0]) * 2))
    second = (second[0], second[1]._replace(boxes_xyxy_px=boxes))
    before = [x[0].clone() for x in (first, second)]
    pixels, target = copy_blend(first, second, 0.5, 3, np.random.default_rng(seed))
    pasted = ((boxes[:, 2:] - boxes[:, :2]).prod(1) >= MIN_PASTED_AREA).sum().item()
    assert target.labels.tolist() == [label for label in labels[:1] if label] + [2] * pasted
    assert_inside(target.boxes_xyxy_px, hw)
    assert torch.equal(first[0], before[0]) and torch.equal(second[0], before[1])
    if labels[0]:
        assert target.boxes_xyxy_px[0].tolist() == first[1].boxes_xyxy_px[0].tolist()
        assert pixels[0].max() >= 127  # what was there is still seen
    if pasted:
        assert np.abs(np.array(bounds(pixels[1].numpy() > 64)) - target.boxes_xyxy_px[-1].numpy()).max() <= 1
        sizes = [b[2:] - b[:2] for b in (target.boxes_xyxy_px[-1], boxes[0])]
        torch.testing.assert_close(*sizes, rtol=0, atol=1e-4)


def test_copyblend_takes_as_many_as_asked_for_and_no_tiny_ones():
    boxes = torch.tensor([(0.0, 0, 9, 9), (0, 0, 10, 10), (2, 2, 20, 20), (0, 0, 30, 5), (5, 5, 25, 25)])
    second = torch.full((3, 40, 40), 200, dtype=torch.uint8), Target(boxes, torch.arange(5), 1, (40, 40))
    first = transformed(picture((40, 40), (0.0,) * 4, 0))
    for most, expected in ((9, 4), (2, 2)):
        for seed in range(10):
            _, target = copy_blend(first, second, 0.5, most, np.random.default_rng(seed))
            assert len(target.labels) == expected == len(set(target.labels.tolist()) - {0})


def test_blending_rounds_to_the_nearest():
    first, second = (
        torch.tensor([0, 10, 255], dtype=torch.uint8),
        torch.tensor([255, 11, 255], dtype=torch.uint8),
    )
    assert blend(first, second, 0.45).tolist() == [115, 10, 255]
    assert blend(first, second, 0.55).tolist() == [140, 11, 255]


def test_pictures_of_two_sizes_are_refused():
    two = [transformed(picture(hw, (0.0,) * 4, 1)) for hw in ((20, 30), (30, 20))]
    with pytest.raises(
        ValueError, match=r"mixed: 20x30 and 30x20 \(height x width\); end the transforms with"
    ):
        mix_up(*two, 0.5)
    with pytest.raises(ValueError, match="set mixup and copyblend"):
        copy_blend(*two, 0.5, 3, np.random.default_rng(0))


@dataclass
class Memory:
    """A dataset that is not on disk."""

    pictures: list
    transforms: object
    seed: int = 0

    def __len__(self):
        return len(self.pictures)

    def load(self, index):
        pixels, target = self.pictures[index]
        return Image.fromarray(pixels.numpy()), target


def source(num_pictures=12, seed=0, ops=PIPELINE):
    """Noise of any size with 0 to 3 objects."""
    rng = np.random.default_rng(1)
    pictures = []
    for k in range(num_pictures):
        h, w = rng.integers(20, 160, 2).tolist()
        corners = np.sort(rng.uniform(0, 1, (k % 4, 2, 2)), 1) * (w, h)
        boxes = torch.from_numpy(corners.reshape(-1, 4)).float()
        pixels = torch.from_numpy(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
        pictures.append(Stored(pixels, Target(boxes, torch.full((k % 4,), k), k, (h, w))))
    return Memory(pictures, build_pipeline(ops, ("RandomZoomOut",), SIZE), seed)


def mixing(**knobs):
    return Mixing(SIZE, MixingSettings(**knobs))


def same(one, other):
    return (
        torch.equal(one[0], other[0])
        and torch.equal(one[1].boxes_xyxy_px, other[1].boxes_xyxy_px)
        and torch.equal(one[1].labels, other[1].labels)
    )


EVERYTHING = Chances(0.5, 0.5, 0.5)


@settings(max_examples=30)
@given(chances=st.tuples(shares, shares, shares), epoch=st.integers(0, 99), index=st.integers(0, 11))
def test_whatever_the_chances_boxes_are_inside_and_not_empty(chances, epoch, index):
    pixels, target = mixing()(source(), index, epoch, Chances(*chances), strong=True)
    assert pixels.shape == (3, *SIZE) and pixels.dtype == torch.uint8
    assert pixels.stride(0) == 1  # channels innermost, as the pipeline gives them
    assert target.image_id == index and len(target.labels) == len(target.boxes_xyxy_px)
    assert target.boxes_xyxy_px.dtype == torch.float32 and target.labels.dtype == torch.int64
    assert_inside(target.boxes_xyxy_px, SIZE)


@pytest.mark.parametrize("cache_mb", [0, 160])
def test_a_picture_is_a_function_of_seed_epoch_and_index(cache_mb):
    data, one = source(), mixing()
    expected = [one(data, k, 3, EVERYTHING, strong=True) for k in range(12)]
    other = mixing(cache_mb=cache_mb)
    torch.manual_seed(77)
    for k in (7, 0, 11, 7, 3):
        other(data, k, 2, EVERYTHING, strong=True)
        assert same(other(data, k, 3, EVERYTHING, strong=True), expected[k])
    assert len(other.partners.cache) == 0 if cache_mb == 0 else len(other.partners.cache) > 0
    for data_, epoch in ((source(seed=1), 3), (data, 4)):
        again = [other(data_, k, epoch, EVERYTHING, strong=True) for k in range(12)]
        assert sum(same(a, b) for a, b in zip(again, expected, strict=True)) < 3


def test_without_chances_it_is_the_pipeline_alone_and_the_cache_is_given_back():
    data, mixer = source(), mixing()
    mixer(data, 0, 0, EVERYTHING._replace(mosaic=1.0), strong=True)
    assert mixer.partners.cache.num_bytes > 0
    torch.manual_seed(3)
    before = torch.get_rng_state()
    plain = mixer(data, 5, 1, Chances(), strong=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert mixer.partners.cache.num_bytes == len(mixer.partners.cache) == 0
    pixels, target = data.pictures[5]
    flipped = [
        build_pipeline([("RandomHorizontalFlip", {"p": p}), ("Resize", {})], (), SIZE)(
            pixels, target, strong=True
        )
        for p in (0.0, 1.0)
    ]
    assert any(same(plain, wanted) for wanted in flipped)


def test_each_chance_does_its_own():
    """By how many pictures' labels meet: each picture has its own."""
    data, mixer = source(), mixing()
    counts = {}
    for name in Chances._fields:
        chances = Chances()._replace(**{name: 1.0})
        out = [
            mixer(data, k, e, chances, strong=False)[1].labels.tolist() for k in range(12) for e in range(4)
        ]
        counts[name] = max(len(set(labels)) for labels in out)
        assert max(len(labels) for labels in out) > 3
    assert counts["mosaic"] in (3, 4) and counts["mixup"] == counts["copyblend"] == 2
    half = [mixer(data, 3, e, Chances(mixup=0.5), strong=False)[1].labels.tolist() for e in range(60)]
    assert 15 <= sum(set(labels) != {3} for labels in half) <= 45
    both = Chances(mixup=1.0, copyblend=1.0)
    for epoch in range(5):  # copyblend only where there is no mixup
        mixed = (mixer(data, 3, epoch, chances, strong=False) for chances in (both, Chances(mixup=1.0)))
        assert same(*mixed)


def test_a_mosaic_is_not_zoomed_or_cropped():
    """Strong transforms that keep the frame still run."""
    zoom = ("RandomZoomOut", {"p": 1.0, "side_range": (3.9, 4.0), "fill": 255})
    data = source(ops=[zoom, ("Resize", {})])
    white = [
        (mixing()(data, 0, 0, Chances(mosaic=chance), strong=True)[0] == 255).all(0).float().mean()
        for chance in (0.0, 1.0)
    ]
    assert white[0] > 0.9 and white[1] < 0.1
    bright = ("RandomPhotometricDistort", {"p": 1.0, "brightness": (0.0, 0.0)})
    for strong in (False, True):
        pipeline = build_pipeline([bright, ("Resize", {})], ("RandomPhotometricDistort",), SIZE)
        pixels, _ = mixing()(replace(data, transforms=pipeline), 0, 0, Chances(mosaic=1.0), strong=strong)
        assert (pixels.max() == 0) == strong


@pytest.mark.parametrize(
    ("knob", "chance"),
    [({"degrees": 0.0}, "mosaic"), ({"translate": (0.0, 0.0)}, "mosaic"), ({"scale": (1.0, 1.0)}, "mosaic"),
     ({"blend": (0.2, 0.3)}, "mixup"), ({"num_pasted": 1}, "copyblend")],
)  # fmt: skip
def test_every_knob_changes_what_it_says(knob, chance):
    data, chances = source(), Chances()._replace(**{chance: 1.0})
    two = [[m(data, k, 0, chances, strong=False) for k in range(12)] for m in (mixing(), mixing(**knob))]
    assert not all(same(a, b) for a, b in zip(*two, strict=True))


@pytest.mark.parametrize("blend", [(0.0, 0.5), (0.5, 1.0), (0.6, 0.4)])
def test_a_share_that_leaves_one_picture_out_is_refused(blend):
    with pytest.raises(ValueError, match=r"mixing\.blend is"):
        mixing(blend=blend)


def test_draws_do_not_depend_on_the_workers(make_disk, recipe):
    disk = make_disk(10)
    disk.document["annotations"] = disk.document["annotations"][:7]  # three pictures without objects
    epochs = []
    for num_workers in (0, 1, 3):
        dataset = disk.dataset(recipe, mixing=Mixing((64, 96), MixingSettings()))
        loader = build_train_loader(dataset, batch_size=2, num_workers=num_workers, seed=1)
        seen = []
        for epoch, chances in ((0, Chances()), (1, EVERYTHING), (2, EVERYTHING)):
            loader.set_epoch(epoch, strong_augmentation=True, chances=chances)
            seen += [(batch.images.clone(), batch.targets) for batch in loader]
        epochs.append(seen)
    for seen in epochs[1:]:
        for (images, targets), (expected, wanted) in zip(seen, epochs[0], strict=True):
            assert torch.equal(images, expected) and torch.equal(targets.boxes_cxcywh, wanted.boxes_cxcywh)
            assert targets.counts == wanted.counts and torch.equal(targets.labels, wanted.labels)
    assert sum(sum(targets.counts) for _, targets in epochs[0][5:]) > 2 * 7


def test_two_ranks_see_what_one_sees(make_disk, recipe):
    dataset = make_disk(8).dataset(recipe, mixing=Mixing((64, 96), MixingSettings()))
    one = build_train_loader(dataset, batch_size=4)
    ranks = [build_train_loader(dataset, batch_size=2, rank=r, world_size=2) for r in range(2)]
    one.set_epoch(1, strong_augmentation=True, chances=EVERYTHING)
    for rank in ranks:
        rank.batches.set_position(1)
    for whole, first, second in zip(one, *ranks, strict=True):
        assert torch.equal(whole.images, torch.cat((first.images, second.images)))
        assert whole.targets.counts == first.targets.counts + second.targets.counts
