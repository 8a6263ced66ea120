"""The lean form against the modules that it stands for."""

import copy

import pytest
import torch
from timm.models.eva import EvaAttention
from torch import nn

from src.deploy.lean import LeanAttention, make_lean
from src.nn.backbone import DINOv3Backbone, HGNetv2
from src.nn.decoder import DFINETransformer
from src.nn.deploy import to_deploy
from src.nn.dfine import DFINE
from src.nn.encoder import HybridEncoder

SHAPE = {"embed_dim": 32, "depth": 3, "num_heads": 2, "out_channels": (8, 12, 16)}


def make_backbone(**knobs) -> DINOv3Backbone:
    """Weights, gains and statistics are all far from what they start as."""
    torch.manual_seed(0)
    backbone = DINOv3Backbone(pretrained=False, **{**SHAPE, **knobs}).eval()
    with torch.no_grad():
        for name, tensor in backbone.state_dict().items():
            if name.endswith(("running_var", "gamma_1", "gamma_2", "norm.weight")):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("num_batches_tracked") or "rope" in name:
                continue
            else:
                tensor.add_(torch.randn_like(tensor) * 0.1)
    return backbone


@pytest.mark.parametrize(
    "knobs",
    [
        {"interaction_indexes": (0, 1, 2), "detail_channels": 4},
        {"downsample": "conv", "upsample": "nearest"},
        {"downsample": "conv", "detail_channels": 4, "layer_norm": True, "position_grid": 3},
        {"model_name": "vit_small_patch16_dinov3_qkvb"},  # with biases
        {"model_name": "dinov3_small_plus", "layer_scale": 0.5},
    ],
    ids=str,
)
def test_the_same_maps_at_any_size(knobs) -> None:
    backbone = make_backbone(**knobs)
    before = copy.deepcopy(backbone.state_dict())
    lean = make_lean(backbone.train())
    assert not lean.training and backbone.training
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())
    for shape in ((2, 3, 64, 96), (1, 3, 96, 32)):
        images = torch.randn(shape)
        with torch.no_grad():
            for found, expected in zip(lean(images), backbone.eval()(images), strict=True):
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dinov3", [True, False])
def test_a_whole_detector_finds_the_same(dinov3: bool) -> None:
    torch.manual_seed(0)
    small = {"hidden_dim": 16, "nhead": 4, "dim_feedforward": 16}
    backbone = make_backbone(detail_channels=4) if dinov3 else HGNetv2(name="B0", pretrained=False)
    encoder = HybridEncoder(backbone.levels, **small, depth_mult=0.34, expansion=0.5)
    decoder = DFINETransformer(encoder.levels, 5, **small, num_layers=2, num_queries=20)
    for parameter in decoder.parameters():  # heads start at 0, which would hide a difference
        torch.nn.init.normal_(parameter, std=0.2)
    model = DFINE(backbone, encoder, decoder).eval()
    lean = make_lean(to_deploy(model))
    images = torch.rand(2, 3, 96, 70)
    with torch.no_grad():
        for found, expected in zip(lean(images), model(images), strict=True):
            assert expected.std() > 0.01
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_no_part_of_the_old_work_is_left() -> None:
    lean = make_lean(make_backbone(detail_channels=4))
    kinds = [type(module) for module in lean.modules()]
    assert kinds.count(LeanAttention) == 3 and EvaAttention not in kinds
    assert all(block.gamma_1 is None and block.gamma_2 is None for block in lean.vit.blocks)
    assert not any(isinstance(norm, nn.BatchNorm2d) for norm in lean.sta.fused_norms)


def test_what_is_not_plain_is_left_alone() -> None:
    class Adapted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    backbone = make_backbone()
    attention = backbone.vit.blocks[1].attn
    for name in ("qkv", "proj"):
        getattr(attention, name).__class__ = Adapted
    backbone.vit.blocks[2].mlp.fc2.__class__ = Adapted
    lean = make_lean(backbone)
    assert [type(block.attn) for block in lean.vit.blocks] == [LeanAttention, EvaAttention, LeanAttention]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(lean(images), backbone(images), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_stays_bfloat16() -> None:
    lean = make_lean(make_backbone().bfloat16())
    with torch.no_grad():
        assert {x.dtype for x in lean(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16))} == {torch.bfloat16}
