"""Upstream's names."""

import pytest
import torch

from src.nn.state_dict import from_upstream, is_upstream

UPSTREAM = {
    "backbone.stem.stem1.conv.weight": torch.zeros(2),
    "encoder.downsample_convs.0.0.cv1.conv.weight": torch.zeros(3),
    "decoder.anchors": torch.zeros(1, 8400, 4),
    "decoder.valid_mask": torch.zeros(1, 8400, 1),
    "decoder.up": torch.tensor([0.5]),
    "decoder.reg_scale": torch.tensor([4.0]),
    "decoder.decoder.up": torch.tensor([0.5]),
    "decoder.decoder.reg_scale": torch.tensor([4.0]),
    "decoder.decoder.layers.0.norm1.weight": torch.zeros(4),
    "decoder.decoder.lqe_layers.0.reg_conf.layers.0.weight": torch.zeros(5),
    "decoder.dec_score_head.0.bias": torch.zeros(6),
}
OURS = {
    "backbone.stem.stem1.conv.weight": 2,
    "encoder.downsample_convs.0.cv1.conv.weight": 3,
    "decoder.layers.0.norm1.weight": 4,
    "decoder.lqe_layers.0.mlp.layers.0.weight": 5,
    "decoder.dec_score_head.0.bias": 6,
}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_are_ours(prefix):
    given = {prefix + name: tensor for name, tensor in UPSTREAM.items()}
    assert is_upstream(given)
    adapted = from_upstream(given, up=0.5, reg_scale=4.0)
    assert {name: len(tensor) for name, tensor in adapted.items()} == OURS
    assert not is_upstream(adapted)


@pytest.mark.parametrize(("up", "reg_scale", "said"), [(0.5, 8.0, "reg_scale: 4"), (0.25, 4.0, "up: 0.5")])
def test_another_weighting_function_is_refused(up, reg_scale, said):
    with pytest.raises(ValueError, match=said):
        from_upstream(UPSTREAM, up=up, reg_scale=reg_scale)
