"""The whole detector: any size of picture, in training and evaluation; parameter counts."""

import pytest
import torch
from torch import nn

from src.nn.backbone.hgnetv2 import HGNetv2
from src.nn.decoder import DFINETransformer
from src.nn.dfine import DFINE
from src.nn.encoder import HybridEncoder
from src.structures import Level

CLASSES = 5


def make_model():
    torch.manual_seed(0)
    backbone = HGNetv2(name="B0", pretrained=False)
    encoder = HybridEncoder(
        backbone.levels, hidden_dim=16, nhead=4, dim_feedforward=16, depth_mult=0.34, expansion=0.5
    )
    decoder = DFINETransformer(
        encoder.levels,
        CLASSES,
        hidden_dim=16,
        nhead=4,
        num_layers=2,
        dim_feedforward=16,
        num_queries=20,
        num_denoising=6,
    )
    return DFINE(backbone, encoder, decoder)


@pytest.mark.parametrize("size_hw", [(300, 500), (480, 640), (256, 704), (224, 224), (33, 1)])
def test_any_size_trains_and_detects(size_hw, make_targets):
    model = make_model().train()
    images = torch.rand(2, 3, *size_hw)
    output = model(images, make_targets((2, 0)))
    assert output.layers[-1].boxes_cxcywh.isfinite().all()
    assert output.denoising.layers[-1].logits.shape == (2, 12, CLASSES)
    with torch.no_grad():
        found = model.eval()(images[:1])
    assert found.logits.shape[::2] == (1, CLASSES)
    assert found.boxes_cxcywh.isfinite().all()


def test_a_batch_without_objects_has_all_gradients(make_targets):
    model = make_model().train()
    output = model(torch.rand(2, 3, 64, 96), make_targets((0, 0)))
    stages = [*output.layers, output.pre, output.encoder, *output.denoising.layers, output.denoising.pre]
    sum(part.sum() * 0 for stage in stages for part in stage if part is not None).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_pictures_of_a_batch_do_not_influence_each_other():
    model = make_model().eval()
    images = torch.rand(3, 3, 64, 96)
    with torch.no_grad():
        together, alone = model(images), model(images[1:2])
    torch.testing.assert_close(together.logits[1:2], alone.logits, atol=1e-4, rtol=1e-4)


class Recorder(nn.Module):
    """A backbone that keeps what it was given."""

    levels = (Level(3, 8), Level(3, 16), Level(3, 32))

    def __init__(self, mean, std):
        super().__init__()
        self.image_mean, self.image_std = mean, std

    def forward(self, images):
        self.seen = images
        return tuple(nn.functional.avg_pool2d(images, level.stride) for level in self.levels)


@pytest.mark.parametrize(("mean", "std"), [(None, None), ((0.5, 0.4, 0.3), (0.1, 0.2, 0.4))])
def test_normalises_as_the_backbone_states_and_pads(mean, std):
    backbone = Recorder(mean, std)
    small = {"hidden_dim": 16, "nhead": 4, "dim_feedforward": 8}
    encoder = HybridEncoder(backbone.levels, **small)
    model = DFINE(backbone, encoder, DFINETransformer(encoder.levels, 2, **small, num_layers=1)).eval()
    images = torch.rand(1, 3, 40, 64)
    model(images)
    expected = images
    if mean is not None:
        expected = (images - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    assert backbone.seen.shape == (1, 3, 64, 64)
    torch.testing.assert_close(backbone.seen[:, :, :40], expected)
    torch.testing.assert_close(backbone.seen[:, :, 50], expected[:, :, 39])
    assert not any(name.startswith("image_") for name in model.state_dict())


def test_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        make_model()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


SIZES = {
    "N": (
        {"name": "B0", "return_idx": (2, 3), "use_lab": True},
        {
            "hidden_dim": 128,
            "use_encoder_idx": (1,),
            "dim_feedforward": 512,
            "expansion": 0.34,
            "depth_mult": 0.5,
        },
        {"hidden_dim": 128, "dim_feedforward": 512, "num_layers": 3, "num_points": (6, 6)},
        3_782_693,
    ),
    "S": (
        {"name": "B0", "use_lab": True},
        {"expansion": 0.5, "depth_mult": 0.34},
        {"num_layers": 3},
        10_321_877,
    ),
    "M": ({"name": "B2", "use_lab": True}, {"depth_mult": 0.67}, {"num_layers": 4}, 19_590_064),
    "L": ({"name": "B4", "freeze_at": 0, "freeze_norm": True}, {}, {}, 31_244_152),
    "X": (
        {"name": "B5", "freeze_at": 0, "freeze_norm": True},
        {"hidden_dim": 384, "dim_feedforward": 2048},
        {"reg_scale": 8.0},
        62_621_560,
    ),
}


@pytest.mark.parametrize("size", SIZES)
def test_parameters_of_the_published_sizes(size):
    """All parameters, frozen too (frozen norms are buffers); upstream has two more, `up` and `reg_scale`."""
    backbone_knobs, encoder_knobs, decoder_knobs, published = SIZES[size]
    with torch.device("meta"):
        backbone = HGNetv2(**backbone_knobs)
        encoder = HybridEncoder(backbone.levels, **encoder_knobs)
        model = DFINE(backbone, encoder, DFINETransformer(encoder.levels, 80, **decoder_knobs))
    assert sum(p.numel() for p in model.parameters()) + 2 == published
