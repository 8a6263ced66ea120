"""Hybrid encoder: shapes, knobs, position codes."""

import math

import pytest
import torch

from src.nn.encoder import HybridEncoder
from src.nn.encoder.attention import position_code
from src.structures import Level

LEVELS = (Level(12, 8), Level(16, 16), Level(24, 32))
BASE = {"hidden_dim": 16, "nhead": 4, "dim_feedforward": 24, "depth_mult": 0.34, "expansion": 0.5}


def make_maps(height=4, width=6, levels=LEVELS, batch=2):
    generator = torch.Generator().manual_seed(0)
    coarsest = levels[-1].stride
    return [
        torch.rand(
            batch,
            level.channels,
            height * coarsest // level.stride,
            width * coarsest // level.stride,
            generator=generator,
        )
        for level in levels
    ]


@pytest.mark.parametrize(("height", "width"), [(2, 2), (1, 3), (5, 2)])
def test_shapes(height, width):
    encoder = HybridEncoder(LEVELS, **BASE)
    assert encoder.levels == (Level(16, 8), Level(16, 16), Level(16, 32))
    maps = encoder(make_maps(height, width))
    assert [tuple(x.shape) for x in maps] == [(2, 16, height * k, width * k) for k in (4, 2, 1)]


def test_two_levels():
    levels = LEVELS[1:]
    maps = HybridEncoder(levels, **BASE, use_encoder_idx=(1,))(make_maps(levels=levels))
    assert [x.shape[-1] for x in maps] == [12, 6]


@pytest.mark.parametrize(
    "knobs",
    [
        {"hidden_dim": 32},
        {"use_encoder_idx": (1,)},
        {"use_encoder_idx": (1, 2)},
        {"use_encoder_idx": ()},
        {"num_encoder_layers": 2},
        {"num_encoder_layers": 0},
        {"nhead": 2},
        {"dim_feedforward": 32},
        {"dropout": 0.5},
        {"enc_act": "relu"},
        {"pe_temperature": 100.0},
        {"expansion": 1.0},
        {"depth_mult": 0.67},
        {"act": "relu"},
        {"fusion": "sum"},
        {"fuse_block": "light"},
        {"input_projection": "where_needed"},
    ],
    ids=str,
)
def test_every_knob_changes_something(knobs, fill_by_name):
    levels = (Level(16, 8), *LEVELS[1:])
    outputs = []
    for more in ({}, knobs):
        encoder = fill_by_name(HybridEncoder(levels, **{**BASE, **more})).train()
        torch.manual_seed(0)
        outputs.append(encoder(make_maps(levels=levels)))
    if outputs[0][0].shape == outputs[1][0].shape:
        assert any((a - b).abs().max() > 1e-4 for a, b in zip(*outputs, strict=True))


def test_every_parameter_gets_a_gradient():
    encoder = HybridEncoder(LEVELS, **BASE)
    sum(x.square().sum() for x in encoder(make_maps())).backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_position_code_against_loops():
    code = position_code(2, 3, 8, 100.0, torch.zeros(()))
    for row in range(2):
        for column in range(3):
            slow = []
            for place in (row, column):
                angles = [place / 100.0 ** (i / 2) for i in range(2)]
                slow += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            torch.testing.assert_close(code[row * 3 + column], torch.tensor(slow))


def test_attention_tells_rows_from_columns(fill_by_name):
    """On rectangles the code must follow the cells: a transposed picture does not give a transposed map."""
    encoder = fill_by_name(HybridEncoder(LEVELS, **BASE)).eval()
    attend = encoder.encoder[0]
    x = torch.rand(1, 16, 2, 3)
    assert (attend(x) - attend(x.transpose(2, 3)).transpose(2, 3)).abs().max() > 1e-3
    # the same cells seen one at a time: permuting tokens and code together permutes the output
    code = position_code(2, 3, 16, 10000.0, x)
    order = torch.randperm(6)
    tokens = x.flatten(2).transpose(1, 2)
    expected = attend(x).flatten(2).transpose(1, 2)[:, order]
    torch.testing.assert_close(attend.layers[0](tokens[:, order], code[order]), expected)


# Counted by running DEIMv2's own modules: FACTS.md 3.1.
@pytest.mark.parametrize(
    ("knobs", "count"),
    [
        ({"hidden_dim": 192, "dim_feedforward": 512, "expansion": 0.34, "depth_mult": 0.67}, 1_367_360),
        ({"hidden_dim": 256, "dim_feedforward": 512, "expansion": 0.67, "depth_mult": 1.0}, 4_002_488),
        ({"hidden_dim": 224, "dim_feedforward": 896, "expansion": 1.0, "depth_mult": 1.0}, 5_147_296),
    ],
    ids=["S", "M", "L"],
)
def test_the_light_form_has_deimv2s_parameters(knobs, count):
    levels = tuple(Level(knobs["hidden_dim"], stride) for stride in (8, 16, 32))
    light = {"fusion": "sum", "fuse_block": "light", "input_projection": "where_needed"}
    with torch.device("meta"):
        encoder = HybridEncoder(levels, **knobs, **light)
    assert sum(p.numel() for p in encoder.parameters()) == count


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"in_channels": (12, 16, 16)}, "backbone gives \\(12, 16, 24\\)"),
        ({"feat_strides": (4, 8, 16)}, "backbone gives"),
        ({"use_encoder_idx": (3,)}, "0 to 2"),
        ({"hidden_dim": 18}, "multiple of 4"),
        ({"act": "tanh"}, "relu, silu, gelu"),
    ],
)
def test_bad_knobs_are_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        HybridEncoder(LEVELS, **{**BASE, **knobs})


def test_stated_truth_is_accepted_and_strides_must_double():
    HybridEncoder(LEVELS, **BASE, in_channels=(12, 16, 24), feat_strides=(8, 16, 32))
    with pytest.raises(ValueError, match="twice"):
        HybridEncoder((Level(12, 8), Level(16, 32)), **BASE, use_encoder_idx=())
