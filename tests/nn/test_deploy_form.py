"""The deploy form gives the same detections with fewer parts."""

import copy

import pytest
import torch
from torch import nn

from src.nn.backbone import DINOv3Backbone
from src.nn.backbone.hgnetv2 import HGNetv2
from src.nn.backbone.lora import LoRA, is_factor
from src.nn.decoder import DFINETransformer
from src.nn.decoder.attention import DeformableAttention
from src.nn.deploy import to_deploy
from src.nn.dfine import DFINE
from src.nn.encoder import HybridEncoder
from src.nn.encoder.blocks import RepBlock

SMALL = {"hidden_dim": 16, "nhead": 4, "dim_feedforward": 16}


def make_model(fill, freeze_norm=False, **knobs):
    backbone = HGNetv2(name="B0", pretrained=False, freeze_norm=freeze_norm)
    encoder = HybridEncoder(backbone.levels, **SMALL, depth_mult=0.34, expansion=0.5)
    decoder = DFINETransformer(encoder.levels, 5, **{**SMALL, "num_layers": 3, "num_queries": 20, **knobs})
    return fill(DFINE(backbone, encoder, decoder))


@pytest.mark.parametrize(
    ("freeze_norm", "knobs"),
    [
        (False, {}),
        (True, {"eval_idx": 1, "layer_scale": 2.0}),
        (False, {"share_bbox_head": True, "share_score_head": True, "eval_idx": 0}),
        (False, {"cross_attn_method": "discrete", "num_denoising": 0, "use_gateway": False}),
    ],
    ids=str,
)
def test_same_outputs_and_an_untouched_model(freeze_norm, knobs, fill_by_name):
    model = make_model(fill_by_name, freeze_norm, **knobs).train()
    before = copy.deepcopy(model.state_dict())
    deployed = to_deploy(model)
    images = torch.rand(2, 3, 96, 70)
    assert model.training and not deployed.training
    with torch.no_grad():
        expected, found = model.eval()(images), deployed(images)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.boxes_cxcywh, expected.boxes_cxcywh, atol=1e-4, rtol=0)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_loras_factors_are_merged(fill_by_name):
    def make(lora):
        backbone = DINOv3Backbone(
            pretrained=False, embed_dim=48, depth=3, num_heads=3, out_channels=(16, 16, 16), lora=lora
        )
        encoder = HybridEncoder(backbone.levels, **SMALL, depth_mult=0.34, expansion=0.5)
        decoder = DFINETransformer(encoder.levels, 5, **SMALL, num_layers=2, num_queries=20)
        return fill_by_name(DFINE(backbone, encoder, decoder)).eval()

    model = make(LoRA(rank=4, alpha=8))
    deployed = to_deploy(model)
    assert deployed.state_dict().keys() == to_deploy(make(None)).state_dict().keys()
    assert any(is_factor(name) for name in model.state_dict())  # it is untouched
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        for merged, unmerged in zip(deployed.backbone(images), model.backbone(images), strict=True):
            torch.testing.assert_close(merged, unmerged, atol=1e-5, rtol=1e-5)
        found, expected = deployed(images), model(images)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.boxes_cxcywh, expected.boxes_cxcywh, atol=1e-4, rtol=0)


def test_what_is_left_out(fill_by_name):
    model = make_model(fill_by_name, eval_idx=1)
    deployed = to_deploy(model)
    kinds = [type(m) for m in deployed.modules()]
    assert nn.BatchNorm2d not in kinds and RepBlock not in kinds and nn.Embedding not in kinds
    decoder = deployed.decoder
    assert len(decoder.layers) == len(decoder.dec_bbox_head) == len(decoder.dec_score_head) == 2
    assert isinstance(decoder.dec_score_head[0], nn.Identity)
    assert isinstance(decoder.lqe_layers[0], nn.Identity)
    assert all(layer.cross_attn.sampling == "gather" for layer in decoder.layers)
    assert not any(p.requires_grad for p in deployed.parameters())


def test_parameters_beside_upstreams_deploy_form():
    """D-FINE-N: what upstream keeps when it deploys and we do not."""
    backbone = HGNetv2(name="B0", return_idx=(2, 3), use_lab=True, pretrained=False)
    encoder = HybridEncoder(
        backbone.levels,
        hidden_dim=128,
        use_encoder_idx=(1,),
        dim_feedforward=512,
        expansion=0.34,
        depth_mult=0.5,
    )
    decoder = DFINETransformer(
        encoder.levels, 80, hidden_dim=128, dim_feedforward=512, num_layers=3, num_points=(6, 6)
    )
    model = DFINE(backbone, encoder, decoder)
    backbone_norm_scales = sum(m.num_features for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
    up_and_reg_scale, noised_labels, projection_norm_scales = 2, 81 * 128, 2 * 128
    count = sum(p.numel() for p in to_deploy(model).parameters())
    rest = up_and_reg_scale + noised_labels + projection_norm_scales + backbone_norm_scales
    assert count + rest == 3_753_799


def test_sampling_is_chosen(fill_by_name):
    model = make_model(fill_by_name).eval()
    forms = {sampling: to_deploy(model, sampling) for sampling in ("gather", "bilinear")}
    for sampling, deployed in forms.items():
        found = {one.sampling for one in deployed.modules() if isinstance(one, DeformableAttention)}
        assert found == {sampling}
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        one, other = (deployed(images) for deployed in forms.values())
    torch.testing.assert_close(one.boxes_cxcywh, other.boxes_cxcywh, atol=1e-4, rtol=0)
    nearest = make_model(fill_by_name, cross_attn_method="discrete")
    with pytest.raises(ValueError, match="cross_attn_method: discrete"):
        to_deploy(nearest, "bilinear")
