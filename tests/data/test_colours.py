import colorsys

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from src.data.colours import Colours, distort, shift_hue
from src.data.transforms import RandomPhotometricDistort


def _smooth(h=60, w=80):
    """A picture [h, w, 3] with every kind of colour, and edges no sharper than a photograph's."""
    noise = torch.rand(1, 3, h // 10, w // 10, generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(noise, size=(h, w), mode="bicubic").clamp(0, 1)
    return (pixels[0].permute(1, 2, 0) * 255).to(torch.uint8).contiguous()


def _torchvisions(pixels, colours):
    """One step after the other, each by torchvision."""
    image = pixels.permute(2, 0, 1)
    if colours.brightness is not None:
        image = F.adjust_brightness(image, colours.brightness)
    if colours.contrast is not None and colours.contrast_first:
        image = F.adjust_contrast(image, colours.contrast)
    if colours.saturation is not None:
        image = F.adjust_saturation(image, colours.saturation)
    if colours.hue is not None:
        image = F.adjust_hue(image, colours.hue)
    if colours.contrast is not None and not colours.contrast_first:
        image = F.adjust_contrast(image, colours.contrast)
    if colours.permutation is not None:
        image = F.permute_channels(image, list(colours.permutation))
    return image.permute(1, 2, 0)


CASES = {
    "nothing": Colours(),
    "darker": Colours(brightness=0.7),
    "brighter": Colours(brightness=1.3),
    "less contrast": Colours(contrast=0.5),
    "more contrast": Colours(contrast=1.5),
    "paler": Colours(saturation=0.5),
    "stronger": Colours(saturation=1.5),
    "hue forward": Colours(hue=0.05),
    "hue back": Colours(hue=-0.12),
    "hue far": Colours(hue=0.45),
    "channels": Colours(permutation=(2, 0, 1)),
    "contrast first": Colours(1.1, 1.4, 1.3, -0.04, True, (1, 0, 2)),
    "contrast last": Colours(0.9, 1.4, 1.3, 0.05, False, (2, 1, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_colours_are_torchvisions(name):
    pixels = _smooth()
    found = distort(pixels, CASES[name], pixels)
    assert found.shape == pixels.shape and found.dtype == torch.uint8 and found.is_contiguous()
    difference = (found.float() - _torchvisions(pixels, CASES[name]).float()).abs()
    # torchvision rounds down after each step, and contrast takes the mean of every pixel
    assert difference.mean() < 1.1 and difference.max() <= 6
    assert torch.equal(found, pixels) == (name == "nothing")


def test_a_part_takes_the_whole_pictures_contrast():
    whole = _smooth()
    whole[30:] = 255
    part = whole[5:25, 10:50]
    for first in (True, False):
        colours = Colours(contrast=1.5, saturation=1.2, contrast_first=first)
        assert torch.equal(distort(part, colours, whole), distort(whole, colours, whole)[5:25, 10:50])
        assert not torch.equal(distort(part, colours, part), distort(part, colours, whole))


def test_hue_turns_as_in_hsv():
    generator = np.random.default_rng(0)
    colours = generator.random((300, 3))
    colours[:40] = np.round(colours[:40])  # greys and pure colours, on every border between the six cases
    for turns in (-0.5, -0.3, -1 / 6, -0.05, 0.0, 0.01, 0.05, 1 / 6, 1 / 3, 0.5):
        expected = []
        for colour in colours:
            hue, saturation, value = colorsys.rgb_to_hsv(*colour)
            expected.append(colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value))
        found = shift_hue(torch.from_numpy(colours.T.copy()), turns).T.numpy()
        np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_draws_are_torchvisions_one_for_one(p):
    theirs = v2.RandomPhotometricDistort(p=p)
    ours = RandomPhotometricDistort(p=p)
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    for seed in range(50):
        torch.manual_seed(seed)
        expected = theirs.make_params([image])
        torch.manual_seed(seed)
        drawn = ours.draw()
        assert drawn.brightness == expected["brightness_factor"]
        assert drawn.contrast == expected["contrast_factor"]
        assert drawn.saturation == expected["saturation_factor"]
        assert drawn.hue == expected["hue_factor"]
        assert drawn.contrast_first == expected["contrast_before"]
        permutation = expected["channel_permutation"]
        assert drawn.permutation == (None if permutation is None else tuple(permutation.tolist()))
        assert drawn.changes == (p > 0 and drawn != Colours(contrast_first=drawn.contrast_first))
