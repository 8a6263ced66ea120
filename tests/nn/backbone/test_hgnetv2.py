"""HGNetv2: shapes, freezing, refusals."""

import pytest
import torch
from torch import nn

from src.nn.backbone.hgnetv2 import HGNetv2
from src.nn.layers import FrozenBatchNorm2d
from src.structures import Level


def small(**knobs):
    return HGNetv2(name="B0", pretrained=False, **knobs)


def test_maps_are_what_levels_says():
    backbone = small(return_idx=(1, 2, 3)).eval()
    assert backbone.levels == (Level(256, 8), Level(512, 16), Level(1024, 32))
    assert backbone.image_mean is None and backbone.image_std is None
    maps = backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(1, 256, 8, 12), (1, 512, 4, 6), (1, 1024, 2, 3)]


def test_stages_after_the_last_map_are_left_out():
    backbone = small(return_idx=(0, 1))
    assert len(backbone.stages) == 2
    assert [x.shape[1] for x in backbone(torch.rand(2, 3, 32, 32))] == [64, 256]


@pytest.mark.parametrize(
    ("freeze_at", "stem_only", "frozen"), [(-1, False, []), (0, True, ["stem"]), (1, False, ["stem", 0, 1])]
)
def test_what_is_frozen_stays_frozen_and_in_eval(freeze_at, stem_only, frozen):
    backbone = small(freeze_at=freeze_at, freeze_stem_only=stem_only)
    parts = {"stem": backbone.stem, **dict(enumerate(backbone.stages))}
    for _ in range(2):
        backbone.train(False)
        backbone.train()
        for name, part in parts.items():
            assert all(p.requires_grad != (name in frozen) for p in part.parameters())
            norms = [m for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
            assert all(m.training != (name in frozen) for m in norms)


def test_freeze_norm_leaves_no_norm_to_train():
    free, frozen = small(), small(freeze_norm=True)
    norms = [m for m in free.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in frozen.modules()) == len(norms)
    frozen.load_state_dict(free.state_dict())
    frozen.train()
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    frozen(torch.rand(2, 3, 32, 32))
    assert all(torch.equal(before[k], v) for k, v in frozen.state_dict().items())


def test_use_lab_adds_a_scale_and_a_shift():
    names = small(use_lab=True).state_dict().keys() - small().state_dict().keys()
    assert names and all(".lab." in name for name in names)


def test_weights_are_asked_for_by_timms_name():
    backbone = HGNetv2(name="B2", checkpoint_path="weights/x.pth")
    assert backbone.timm_name == "hgnetv2_b2.ssld_stage1_in22k_in1k"
    assert backbone.pretrained and backbone.checkpoint_path == "weights/x.pth"


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"name": "B9"}, "B0 to B6"),
        ({"return_idx": (3, 1)}, "ascending"),
        ({"return_idx": ()}, "ascending"),
        ({"return_idx": (2, 4)}, "0 to 3"),
        ({"freeze_at": 4}, "-1 to 3"),
    ],
)
def test_bad_knobs_are_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        HGNetv2(**knobs)
