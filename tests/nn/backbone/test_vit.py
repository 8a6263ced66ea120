import math

import pytest
import timm
import torch

from src.nn.backbone.vit import (
    MODEL_ALIASES,
    RotaryPositions,
    ViTShape,
    build_vit,
    extract_maps,
    image_statistics,
    resolve_model_name,
)

SMALL = ViTShape(embed_dim=48, depth=3, num_heads=3)


def test_every_alias_and_every_timm_name_is_known() -> None:
    for alias, name in MODEL_ALIASES.items():
        assert resolve_model_name(alias) == name
        assert timm.is_model(name)
    for name in (
        "vit_small_patch16_dinov3_qkvb",
        "vit_large_patch16_dinov3.sat493m",
        "vit_7b_patch16_dinov3",
    ):
        assert resolve_model_name(name) == name


@pytest.mark.parametrize(
    "name", ["dinov3_giant", "vit_small_patch16_224", "vit_small_patch16_dinov3.nothing"]
)
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"allowed: dinov3_small, .*vit_small_patch16_dinov3"):
        resolve_model_name(name)


def test_the_small_model_has_the_published_size_and_tokens() -> None:
    vit = build_vit("dinov3_small", ViTShape())
    assert sum(p.numel() for p in vit.parameters()) == 21_586_944
    assert vit.num_prefix_tokens == 5
    assert vit.blocks[0].attn.fused_attn
    assert not any("mask_token" in name for name in vit.state_dict())


def test_each_shape_override_changes_the_model() -> None:
    vit = build_vit("dinov3_small", SMALL._replace(layer_scale=0.5))
    assert (vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads) == (48, 3, 3)
    assert torch.equal(vit.blocks[2].gamma_1, torch.full((48,), 0.5))
    assert torch.equal(build_vit("dinov3_small", SMALL).blocks[2].gamma_2, torch.full((48,), 1e-5))


@pytest.mark.parametrize(
    "shape",
    [
        ViTShape(depth=0),
        ViTShape(embed_dim=-48),
        ViTShape(num_heads=0),
        ViTShape(layer_scale=0.0),
        ViTShape(embed_dim=50, num_heads=3, depth=1),
        ViTShape(embed_dim=32, depth=1),
    ],
)
def test_impossible_shapes_are_refused(shape: ViTShape) -> None:
    with pytest.raises(ValueError, match="above 0|multiple of 4"):
        build_vit("dinov3_small", shape)


def test_satellite_weights_bring_their_own_statistics() -> None:
    mean, std = image_statistics(build_vit("dinov3_small", SMALL))
    assert mean == (0.485, 0.456, 0.406) and std == (0.229, 0.224, 0.225)
    mean, std = image_statistics(build_vit("vit_large_patch16_dinov3.sat493m", SMALL))
    assert mean == (0.430, 0.411, 0.296) and std == (0.213, 0.156, 0.143)


def test_maps_are_the_patch_tokens_without_the_five_prefix_tokens() -> None:
    vit = build_vit("dinov3_small", SMALL).eval()
    images = torch.rand(2, 3, 32, 64)
    tokens = vit.forward_features(images)  # [B, 5 + 2 * 4, D]
    (last,) = extract_maps(vit, images, (2,))
    assert last.shape == (2, 48, 2, 4)
    assert torch.equal(last.flatten(2).transpose(1, 2), tokens[:, 5:])
    first, _ = extract_maps(vit, images, (0, 2))
    assert first.shape == last.shape and not torch.equal(first, last)


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (14, 14), (40, 40)])
def test_rotary_table_is_timms(shape: tuple[int, int]) -> None:
    reference = timm.create_model("vit_small_patch16_dinov3", embed_dim=48, num_heads=3, depth=1).rope
    ours = RotaryPositions(reference.periods)
    assert torch.equal(ours.get_embed(shape), reference.get_embed(shape=list(shape)))


def test_rotary_table_by_hand() -> None:
    table = RotaryPositions(torch.tensor([1.0])).get_embed((1, 2))  # centres y 0; x -1/2, +1/2
    angles = torch.tensor([[0.0, -math.pi, 0.0, -math.pi], [0.0, math.pi, 0.0, math.pi]])
    torch.testing.assert_close(table, torch.cat((angles.sin(), angles.cos()), 1))


def test_rotary_periods_outlive_saving_and_half_precision() -> None:
    rope = RotaryPositions(torch.tensor([1.0, 1.3359375, 74.5]))
    assert torch.equal(rope.state_dict()["periods"], rope.periods)
    half = RotaryPositions(rope.periods).half()
    assert half.periods.dtype == torch.float32
    assert torch.equal(half.periods, rope.periods)
    assert rope.to("meta").periods.device.type == "meta"


def test_features_do_not_depend_on_the_mode() -> None:
    vit = build_vit("dinov3_small", SMALL._replace(layer_scale=1.0))
    images = torch.rand(1, 3, 48, 32)
    (train,) = extract_maps(vit.train(), images, (2,))
    (evaluation,) = extract_maps(vit.eval(), images, (2,))
    assert torch.equal(train, evaluation)
