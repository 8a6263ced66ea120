"""Upstream's names."""

import json

import pytest
import torch

from src.nn.state_dict import from_upstream, is_upstream, to_upstream

NUMBERS = ("decoder.up", "decoder.reg_scale", "decoder.decoder.up", "decoder.decoder.reg_scale")
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


@pytest.mark.parametrize("size", ["n", "l"])
def test_published_names_and_shapes_come_back(size, shared):
    shapes = json.loads((shared / "parity" / f"dfine_hgnetv2_{size}_keys.json").read_text())
    theirs = {name: torch.rand(shape) for name, shape in shapes.items()}
    theirs |= {name: torch.tensor([0.5 if name.endswith("up") else 4.0]) for name in NUMBERS}
    ours = from_upstream(theirs, up=0.5, reg_scale=4.0)
    strides = {"n": (16, 32), "l": (8, 16, 32)}[size]
    back = to_upstream(ours, up=0.5, reg_scale=4.0, strides=strides, size_hw=(640, 640))
    assert {name: list(tensor.shape) for name, tensor in back.items()} == shapes
    computed = {"decoder.anchors", "decoder.valid_mask"}
    assert all(torch.equal(back[name], theirs[name]) for name in shapes.keys() - computed)


def test_anchors_lie_on_the_cells():
    back = to_upstream({}, up=0.5, reg_scale=4.0, strides=(8, 16), size_hw=(32, 1600))
    anchors, valid = back["decoder.anchors"], back["decoder.valid_mask"]
    assert anchors.shape == (1, 4 * 200 + 2 * 100, 4) and valid.shape == (1, 1000, 1)
    assert valid.dtype == torch.bool
    expected = torch.tensor([3.5 / 200, 1.5 / 4, 0.05, 0.05])  # row 1, column 3 of the first level
    torch.testing.assert_close(anchors[0, 203].sigmoid(), expected)
    torch.testing.assert_close(anchors[0, 801].sigmoid(), torch.tensor([1.5 / 100, 0.25, 0.1, 0.1]))
    # centres at 0.25 % and 0.75 % of the width are too near to the edge, so is 0.5 % on the second level
    assert valid[0, :4, 0].tolist() == [False, False, True, True] and not valid[0, 800]
    assert anchors[0, 0].isinf().all() and anchors[valid.expand_as(anchors)].isfinite().all()
