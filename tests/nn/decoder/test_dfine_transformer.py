"""D-FINE's decoder: outputs, gradients, knobs, refusals."""

import pytest
import torch

from src.nn.decoder import DFINETransformer
from src.structures import Level

LEVELS = (Level(16, 8), Level(16, 16), Level(16, 32))
BASE = {
    "hidden_dim": 16,
    "num_layers": 2,
    "nhead": 4,
    "dim_feedforward": 24,
    "num_queries": 9,
    "num_points": (2, 3, 2),
    "num_denoising": 6,
    "reg_max": 8,
}
CLASSES = 5
WHOLE = (1.0, 1.0)


def make_maps(height=2, width=3, levels=LEVELS, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(
            batch,
            level.channels,
            height * 32 // level.stride,
            width * 32 // level.stride,
            generator=generator,
        )
        for level in levels
    ]


def make_decoder(**knobs):
    return DFINETransformer(LEVELS, CLASSES, **{**BASE, **knobs})


def all_outputs(output):
    stages = [*output.layers, output.pre, output.encoder]
    if output.denoising is not None:
        stages += [*output.denoising.layers, output.denoising.pre]
    return [part for stage in stages for part in stage if part is not None]


def test_training_output(make_targets):
    output = make_decoder().train()(make_maps(), WHOLE, make_targets((3, 1)))
    assert len(output.layers) == 2 and output.reg_scale == 4.0 and output.bins.shape == (9,)
    for layer in output.layers:
        assert layer.logits.shape == (2, 9, CLASSES)
        assert layer.boxes_cxcywh.shape == layer.reference_boxes.shape == (2, 9, 4)
        assert layer.corners.shape == (2, 9, 36)
        assert not layer.reference_boxes.requires_grad
        torch.testing.assert_close(layer.reference_boxes, output.pre.boxes_cxcywh)
    assert output.pre.corners is None and output.encoder.corners is None
    denoising = output.denoising
    assert (denoising.num_groups, denoising.max_count) == (2, 3)
    assert [layer.logits.shape for layer in denoising.layers] == [(2, 12, CLASSES)] * 2
    assert denoising.pre.boxes_cxcywh.shape == (2, 12, 4)


def test_heads_start_where_the_encoder_points(make_targets):
    """Zero-initialised heads: no stage moves a box before anything is learnt."""
    output = make_decoder().train()(make_maps(), WHOLE, make_targets((1, 1)))
    for stage in (*output.layers, output.pre):
        torch.testing.assert_close(stage.boxes_cxcywh, output.encoder.boxes_cxcywh, atol=1e-5, rtol=0)


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (7, 2)])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"layer_scale": 2.0, "eval_idx": 0},
        {"share_bbox_head": True, "share_score_head": True},
        {"use_gateway": False},
        {"cross_attn_method": "discrete"},
        {"learn_query_content": True},
        {"num_denoising": 0},
    ],
    ids=str,
)
def test_every_trainable_parameter_gets_a_gradient(counts, knobs, make_targets, fill_by_name):
    decoder = fill_by_name(make_decoder(**knobs)).train()
    output = decoder(make_maps(4, 4), WHOLE, make_targets(counts))
    sum(part.square().sum() for part in all_outputs(output)).backward()
    missing = [n for n, p in decoder.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)


def test_no_gradient_reaches_the_label_of_padding(make_targets):
    decoder = make_decoder().train()
    output = decoder(make_maps(), WHOLE, make_targets((0, 0)))
    sum(part.square().sum() for part in all_outputs(output)).backward()
    assert (decoder.denoising_class_embed.weight.grad == 0).all()


def test_own_queries_do_not_see_the_truth(make_targets, fill_by_name):
    decoder = fill_by_name(make_decoder()).train()
    with_truth = decoder(make_maps(), WHOLE, make_targets((3, 1)))
    other_truth = decoder(make_maps(), WHOLE, make_targets((2, 4), seed=9))
    without = decoder(make_maps(), WHOLE, None)
    assert without.denoising is None
    for a, b, c in zip(with_truth.layers, other_truth.layers, without.layers, strict=True):
        torch.testing.assert_close(a.logits, b.logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(a.boxes_cxcywh, c.boxes_cxcywh, atol=1e-4, rtol=0)


@pytest.mark.parametrize("eval_idx", [0, 1, -1])
def test_evaluation_gives_what_layer_eval_idx_says(eval_idx, fill_by_name):
    decoder = fill_by_name(make_decoder(eval_idx=eval_idx))
    expected = decoder.train()(make_maps(), WHOLE, None).layers[eval_idx]
    found = decoder.eval()(make_maps(), WHOLE)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.boxes_cxcywh, expected.boxes_cxcywh, atol=1e-5, rtol=1e-5)


def test_evaluation_runs_no_layer_after_eval_idx(fill_by_name):
    decoder = fill_by_name(make_decoder(eval_idx=0)).eval()
    expected = decoder(make_maps(), WHOLE)
    for part in (
        decoder.layers[1],
        decoder.dec_bbox_head[1],
        decoder.dec_score_head[1],
        decoder.lqe_layers[1],
    ):
        part.forward = None  # calling it would fail
    torch.testing.assert_close(decoder(make_maps(), WHOLE).logits, expected.logits)


@pytest.mark.parametrize(
    "knobs",
    [
        {"hidden_dim": 32},
        {"num_layers": 3},
        {"nhead": 2},
        {"dim_feedforward": 32},
        {"dropout": 0.5},
        {"activation": "silu"},
        {"num_queries": 8},
        {"num_points": 2},
        {"num_points": (3, 2, 2)},
        {"num_denoising": 12},
        {"num_denoising": 0},
        {"label_noise_ratio": 1.0},
        {"box_noise_scale": 0.2},
        {"learn_query_content": True},
        {"reg_max": 16},
        {"reg_scale": 8.0},
        {"up": 0.25},
        {"layer_scale": 2.0, "eval_idx": 0},
        {"cross_attn_method": "discrete"},
        {"share_bbox_head": True},
        {"share_score_head": True},
        {"use_gateway": False},
    ],
    ids=str,
)
def test_every_knob_changes_something(knobs, make_targets, fill_by_name):
    results = []
    for more in ({}, knobs):
        decoder = fill_by_name(make_decoder(**more)).train()
        torch.manual_seed(0)
        results.append((decoder, all_outputs(decoder(make_maps(), WHOLE, make_targets((3, 1))))))
    shapes = [{n: p.shape for n, p in decoder.named_parameters()} for decoder, _ in results]
    parts = [outputs for _, outputs in results]
    same_parts = len(parts[0]) == len(parts[1]) and all(
        a.shape == b.shape and torch.allclose(a, b, atol=1e-4) for a, b in zip(*parts, strict=True)
    )
    assert not same_parts
    if "share" in str(knobs):
        assert len(shapes[1]) < len(shapes[0])


def test_wide_layers_are_as_wide_as_layer_scale_says():
    decoder = make_decoder(num_layers=3, eval_idx=0, layer_scale=2.0)
    assert decoder.widths == (16, 32, 32)
    assert decoder.layers[1].linear1.weight.shape == (48, 32)
    assert decoder.dec_score_head[2].weight.shape == (CLASSES, 32)


def test_one2many_takes_a_cell_for_each_of_its_classes(fill_by_name):
    decoder = fill_by_name(make_decoder(query_select_method="one2many", num_queries=1000)).eval()
    output = decoder(make_maps(1, 1), WHOLE)
    assert output.logits.shape[1] == 21 * CLASSES


@pytest.mark.parametrize(("height", "width", "cells"), [(1, 1, 21), (1, 2, 42)])
def test_fewer_cells_than_queries(height, width, cells, make_targets):
    decoder = make_decoder(num_queries=300, learn_query_content=True)
    assert decoder.eval()(make_maps(height, width), WHOLE).logits.shape == (2, cells, CLASSES)
    assert (
        decoder.train()(make_maps(height, width), WHOLE, make_targets((1, 0))).layers[-1].logits.shape[1]
        == cells
    )


def test_no_query_comes_from_padding(make_targets):
    """608 x 624 padded to 608 x 640: no box starts outside the picture, and 1 is the picture's own edge."""
    decoder = make_decoder(num_queries=8000).train()
    output = decoder(make_maps(19, 20, batch=1), (1.0, 624 / 640), make_targets((1,)))
    centres = output.encoder.boxes_cxcywh[..., :2]
    assert (centres > 0.01).all() and (centres < 0.99).all()
    # P8: 76 x 78 cells less the outermost, which lie in the margin; P16: all 38 x 39; P32: 19 x 19.5
    assert centres.shape[1] == 74 * 76 + 38 * 39 + 19 * 19


def test_attention_looks_at_the_same_pixels_with_and_without_padding(fill_by_name):
    """A box in units of the picture is found at the same cells, however much padding follows them."""
    decoder = fill_by_name(make_decoder(num_queries=1)).eval()
    attention = decoder.layers[0].cross_attn
    small = make_maps(2, 2, batch=1)
    large = [torch.cat((x, torch.randn_like(x)), 3) for x in small]
    results = []
    for maps, extent in ((small, 1.0), (large, 0.5)):
        shapes = [(x.shape[2], x.shape[3]) for x in maps]
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)
        box = torch.tensor([[[0.5, 0.5, 0.05, 0.05]]]) * torch.tensor([extent, 1.0, extent, 1.0])
        x = torch.zeros(1, 1, 16)
        results.append(attention(x, box, attention.arrange(memory, shapes), shapes))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def test_padding_leaves_boxes_in_units_of_the_picture():
    """With constant maps nothing but the place of a cell makes a box, so padding must not move it."""
    decoder = make_decoder(num_queries=100).eval()
    whole = decoder([torch.ones(1, 16, 8, 8), torch.ones(1, 16, 4, 4), torch.ones(1, 16, 2, 2)], WHOLE)
    padded = decoder([torch.ones(1, 16, 8, 16), torch.ones(1, 16, 4, 8), torch.ones(1, 16, 2, 4)], (1.0, 0.5))
    torch.testing.assert_close(whole.boxes_cxcywh.sum(1), padded.boxes_cxcywh.sum(1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_keeps_boxes_in_float32(dtype, make_targets, fill_by_name):
    decoder = fill_by_name(make_decoder()).train()
    reference = decoder.eval()(make_maps(), WHOLE)
    with torch.autocast("cpu", dtype):
        output = decoder.train()(make_maps(), WHOLE, make_targets((3, 0)))
        found = decoder.eval()(make_maps(), WHOLE)
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in all_outputs(output))
    assert reference.logits.shape == found.logits.shape


def test_boxes_are_finite_for_huge_inputs(make_targets, fill_by_name):
    decoder = fill_by_name(make_decoder())
    maps = [x * 1e4 for x in make_maps()]
    with torch.autocast("cpu", torch.float16):
        output = decoder.train()(maps, WHOLE, make_targets((3, 0)))
    assert all(part.isfinite().all() for part in all_outputs(output))


def test_discrete_attention_fixes_its_offsets():
    decoder = make_decoder(cross_attn_method="discrete")
    assert not decoder.layers[0].cross_attn.sampling_offsets.weight.requires_grad
    assert make_decoder().layers[0].cross_attn.sampling_offsets.weight.requires_grad


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"feat_channels": (16, 16, 32)}, "encoder gives \\(16, 16, 16\\)"),
        ({"feat_strides": (4, 8, 16)}, "encoder gives \\(8, 16, 32\\)"),
        ({"num_levels": 4}, "encoder gives 3"),
        ({"num_points": (2, 2)}, "3 levels"),
        ({"num_points": 0}, "positive"),
        ({"eval_idx": 2}, "num_layers is 2"),
        ({"eval_idx": -3}, "num_layers is 2"),
        ({"hidden_dim": 18}, "nhead"),
        ({"layer_scale": 1.1, "eval_idx": 0}, "nhead"),
        ({"layer_scale": 2.0, "eval_idx": 0, "share_bbox_head": True}, "shared"),
        ({"num_queries": 0}, "at least 1"),
        ({"num_denoising": -1}, "at least 0"),
        ({"reg_max": 31}, "even"),
        ({"activation": "tanh"}, "relu, silu, gelu"),
    ],
)
def test_bad_knobs_are_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        make_decoder(**knobs)


def test_stated_truth_is_accepted():
    make_decoder(feat_channels=(16, 16, 16), feat_strides=(8, 16, 32), num_levels=3)


def test_maps_of_another_width_are_projected(fill_by_name):
    levels = (Level(24, 8), Level(16, 16), Level(24, 32))
    decoder = fill_by_name(DFINETransformer(levels, CLASSES, **BASE)).eval()
    assert decoder(make_maps(levels=levels), WHOLE).logits.shape == (2, 9, CLASSES)
