from typing import Any

import pytest
import torch

from src.nn.backbone.dinov3_backbone import DINOv3Backbone
from src.structures import Level


def small(**knobs: Any) -> DINOv3Backbone:
    torch.manual_seed(0)
    defaults = {
        "pretrained": False,
        "embed_dim": 48,
        "depth": 4,
        "num_heads": 3,
        "layer_scale": 0.5,
        "out_channels": (8, 10, 12),
    }
    return DINOv3Backbone(**{**defaults, **knobs})


def learning(backbone: DINOv3Backbone) -> set[str]:
    return {name for name, p in backbone.named_parameters() if p.requires_grad}


def total(outputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return sum((x * torch.randn(x.shape, generator=generator)).sum() for x in outputs)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (32, 160)])
@pytest.mark.parametrize("knobs", [{}, {"interaction_indexes": (0, 1, 3), "detail_channels": 4}])
def test_the_pyramid_is_what_levels_say(size: tuple[int, int], knobs: dict[str, Any]) -> None:
    backbone = small(**knobs)
    assert backbone.levels == (Level(8, 8), Level(10, 16), Level(12, 32))
    outputs = backbone(torch.rand(2, 3, *size))
    for output, level in zip(outputs, backbone.levels, strict=True):
        assert output.shape == (2, level.channels, size[0] // level.stride, size[1] // level.stride)


@pytest.mark.parametrize("size", [(48, 64), (64, 80), (300, 500)])
def test_sizes_off_the_grid_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]}.*32"):
        small()(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    "knobs", [{}, {"interaction_indexes": (1, 2), "position_grid": 2, "layer_norm": True}]
)
def test_every_parameter_is_trainable_and_gets_a_gradient(knobs: dict[str, Any]) -> None:
    backbone = small(**knobs)
    total(backbone(torch.rand(2, 3, 64, 64))).backward()
    got = {name for name, p in backbone.named_parameters() if p.grad is not None and p.grad.any()}
    assert got == learning(backbone) == {name for name, _ in backbone.named_parameters()}


def test_blocks_after_the_deepest_tap_are_left_out() -> None:
    assert small().num_blocks == 4
    backbone = small(interaction_indexes=(0, 2))
    assert (backbone.num_blocks, backbone.full_depth) == (3, 4)
    assert not any("blocks.3" in name for name in backbone.state_dict())


def test_the_last_block_is_the_default_tap() -> None:
    images = torch.rand(1, 3, 32, 64)
    for given, stated in zip(small()(images), small(interaction_indexes=(3,))(images), strict=True):
        assert torch.equal(given, stated)


@pytest.mark.parametrize("taps", [(4,), (-1,), (2, 1), (1, 1)])
def test_bad_taps_are_refused(taps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"interaction_indexes.*0 to 3"):
        small(interaction_indexes=taps)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"feat_strides": (4, 8, 16)}, r"feat_strides.*\(4, 8, 16\).*\(8, 16, 32\)"),
        ({"freeze_backbone_epochs": -1}, "freeze_backbone_epochs"),
        ({"pretrained": True}, "pretrained=False"),
        ({"model_name": "dinov3_giant"}, "dinov3_huge_plus"),
    ],
)
def test_bad_knobs_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**knobs)


def test_what_the_solver_reads() -> None:
    backbone = small(freeze_backbone_epochs=10)
    assert (backbone.freeze_backbone, backbone.freeze_backbone_epochs) == (False, 10)
    assert backbone.image_mean == (0.485, 0.456, 0.406)
    assert backbone.image_std == (0.229, 0.224, 0.225)


def test_frozen_means_the_vit_alone() -> None:
    backbone = small(freeze_backbone=True).train()
    assert not any(module.training for module in backbone.vit.modules())
    assert all(module.training for module in backbone.sta.modules())
    assert learning(backbone) == {f"sta.{name}" for name, _ in backbone.sta.named_parameters()}
    total(backbone(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.grad is None for p in backbone.vit.parameters())
    assert all(p.grad is not None for p in backbone.sta.parameters())


def test_the_last_blocks_and_the_norm_train() -> None:
    backbone = small()
    everything = learning(backbone)
    backbone.set_trainable_blocks(2)
    names = {name for name in learning(backbone) if name.startswith("vit.")}
    assert {name.split(".")[1] for name in names} == {"blocks", "norm"}
    assert {name.split(".")[2] for name in names if "blocks" in name} == {"2", "3"}
    backbone.eval().train()
    states = [block.attn.training for block in backbone.vit.blocks]
    assert states == [False, False, True, True] and not backbone.vit.patch_embed.training
    total(backbone(torch.rand(2, 3, 64, 64))).backward()
    assert {name for name, p in backbone.named_parameters() if p.grad is not None} == learning(backbone)
    backbone.set_trainable_blocks(None)
    assert learning(backbone) == everything
    assert all(module.training for module in backbone.modules())


def test_frozen_blocks_keep_nothing_for_the_backward_pass() -> None:
    def saved_bytes(blocks: int | None) -> int:
        backbone = small()
        backbone.set_trainable_blocks(blocks)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: (sizes.append(x.numel() * x.element_size()), x)[1], lambda x: x
        ):
            backbone(torch.rand(1, 3, 64, 64))
        return sum(sizes)

    counts = [saved_bytes(blocks) for blocks in (0, 1, 2, 4, None)]
    assert counts == sorted(counts)
    assert counts[0] < 0.2 * counts[1]
    assert counts[1] < 0.5 * counts[3]


@pytest.mark.parametrize("blocks", [-1, 5])
def test_more_blocks_than_there_are(blocks: int) -> None:
    with pytest.raises(ValueError, match="0 to 4"):
        small().set_trainable_blocks(blocks)


def test_a_saved_model_gives_the_same_maps_again() -> None:
    backbone = small().eval()
    backbone.vit.rope.periods.mul_(1.01)
    again = small().eval()
    again.load_state_dict(backbone.state_dict())
    images = torch.rand(1, 3, 32, 32)
    assert all(torch.equal(x, y) for x, y in zip(backbone(images), again(images), strict=True))


def test_export_with_another_batch_size() -> None:
    backbone = small(detail_channels=4, position_grid=2).eval()
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(backbone, (torch.rand(2, 3, 64, 96),), dynamic_shapes=({0: batch},))
    images = torch.rand(3, 3, 64, 96)
    for exported, eager in zip(program.module()(images), backbone(images), strict=True):
        torch.testing.assert_close(exported, eager, atol=1e-5, rtol=1e-5)
