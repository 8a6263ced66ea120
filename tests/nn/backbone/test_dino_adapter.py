from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import on_ranks
from torch import Tensor, nn

from src.nn.backbone import DinoAdapter
from src.nn.backbone.adapter_blocks import PyramidAttention
from src.nn.backbone.vit import run_blocks
from src.nn.sync_norm import GlooSyncBatchNorm2d, synchronise_batch_norm
from src.ops.padding import pad_to_multiple
from src.structures import Level

FAMILIES = ("dinov3_small", "dinov2_small", "dinov2_small_reg4")
SHAPE = {"embed_dim": 24, "depth": 4, "num_heads": 2, "layer_scale": 0.5, "prior_channels": 4}
WITH_4 = {"feat_strides": (4, 8, 16, 32), "out_channels": (6, 8, 10, 12)}


def small(**knobs: Any) -> DinoAdapter:
    torch.manual_seed(0)
    return DinoAdapter(**{"pretrained": False, "out_channels": (8, 10, 12), **SHAPE, **knobs})


def talking(adapter: DinoAdapter) -> DinoAdapter:
    """With gains and offsets that are not 0 any more, so that everything has its part in the outputs."""
    for injector in adapter.injectors:
        nn.init.normal_(injector.gamma, std=0.5)
    for part in adapter.modules():
        if isinstance(part, PyramidAttention):
            nn.init.normal_(part.sampling_offsets.weight, std=0.1)
            nn.init.normal_(part.attention_weights.weight, std=0.1)
    return adapter


def total(outputs: tuple[Tensor, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return sum((x * torch.randn(x.shape, generator=generator)).sum() for x in outputs)


def learning(adapter: DinoAdapter) -> set[str]:
    return {name for name, p in adapter.named_parameters() if p.requires_grad}


def sizes(outputs: tuple[Tensor, ...]) -> list[tuple[int, ...]]:
    return [tuple(x.shape[-2:]) for x in outputs]


def covering(size: tuple[int, int], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]


def check_lengths(_: nn.Module, inputs: tuple[Any, ...]) -> None:
    queries, centres, memory, grid = inputs
    assert memory.shape[1] == sum(h * w for h, w in grid.shapes_hw) == len(grid.centres)
    assert queries.shape[1] == len(centres)


TINY = {"embed_dim": 4, "depth": 2, "num_heads": 1, "num_interactions": 2, "prior_channels": 1}
ANY_SIZE = {name: small(model_name=name, **TINY).eval() for name in FAMILIES}
for model in ANY_SIZE.values():
    for part in model.modules():
        if isinstance(part, PyramidAttention):
            part.register_forward_pre_hook(check_lengths)


@pytest.mark.parametrize("size", [(256, 704), (224, 224), (900, 1600), (480, 640), (300, 500)])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_named_sizes(name: str, size: tuple[int, int]) -> None:
    with torch.no_grad():
        outputs = ANY_SIZE[name](torch.rand(1, 3, *size))
    assert sizes(outputs) == covering(size, (8, 16, 32))
    assert all(x.isfinite().all() for x in outputs)


@settings(max_examples=200, deadline=None)
@given(st.integers(33, 1333), st.integers(33, 1333), st.sampled_from(FAMILIES))
def test_outputs_cover_a_picture_of_any_size(height: int, width: int, name: str) -> None:
    with torch.no_grad():
        outputs = ANY_SIZE[name](torch.zeros(1, 3, height, width))
    assert sizes(outputs) == covering((height, width), (8, 16, 32))


@pytest.mark.parametrize("knobs", [{}, WITH_4, {"model_name": "dinov2_small_reg4"}], ids=str)
def test_the_pyramid_is_what_levels_say(knobs: dict[str, Any]) -> None:
    adapter = small(**knobs)
    assert adapter.levels[-3:] == (Level(8, 8), Level(10, 16), Level(12, 32))
    outputs = adapter(torch.rand(2, 3, 70, 96))
    assert [x.shape[:2] for x in outputs] == [(2, level.channels) for level in adapter.levels]
    assert sizes(outputs) == covering((70, 96), tuple(level.stride for level in adapter.levels))


def test_an_odd_picture_is_the_crop_of_its_padded_self() -> None:
    adapter = talking(small(**WITH_4)).eval()
    images = torch.rand(2, 3, 75, 100)
    padded, _ = pad_to_multiple(images, 32)
    assert padded.shape[-2:] == (96, 128)
    for x, whole in zip(adapter(images), adapter(padded), strict=True):
        torch.testing.assert_close(x, whole[..., : x.shape[-2], : x.shape[-1]])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_vit_starts_undisturbed(name: str) -> None:
    adapter = small(model_name=name).eval()
    seen: list[Tensor] = []
    adapter.vit.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        adapter(images)
        undisturbed = adapter._embedded(images)
        expected = run_blocks(adapter.vit, 0, 4, undisturbed.tokens, undisturbed.positions)
        torch.testing.assert_close(seen[-1], expected)
        seen.clear()
        talking(adapter)(images)
    assert not torch.allclose(seen[-1], expected, atol=1e-2)


@torch.no_grad()
def test_each_part_has_a_say() -> None:
    adapter = talking(small(**WITH_4, depth=2, num_interactions=2)).eval()
    images = torch.rand(1, 3, 32, 64)
    before = adapter(images)
    for name, parameter in adapter.named_parameters():
        if not name.startswith("vit."):
            kept = parameter.clone()
            parameter.add_(torch.randn_like(parameter))
            changed = any(not torch.equal(x, y) for x, y in zip(before, adapter(images), strict=True))
            assert changed, name
            parameter.copy_(kept)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("knobs", [{}, WITH_4, *({"model_name": name} for name in FAMILIES[1:])], ids=str)
def test_every_parameter_is_trainable_and_gets_a_gradient(knobs: dict[str, Any], checkpointing: bool) -> None:
    adapter = talking(small(**knobs, gradient_checkpointing=checkpointing)).train()
    total(adapter(torch.rand(2, 3, 64, 64))).backward()
    got = {name for name, p in adapter.named_parameters() if p.grad is not None and p.grad.any()}
    assert got == learning(adapter) == {name for name, _ in adapter.named_parameters()}


def test_checkpointing_changes_no_gradient_and_saves_memory() -> None:
    def step(checkpointing: bool) -> tuple[list[Tensor], int]:
        kept: list[int] = []
        adapter = talking(small(gradient_checkpointing=checkpointing)).train()
        images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x.numel()), x)[1], lambda x: x):
            loss = total(adapter(images))
        loss.backward()
        return [p.grad for p in adapter.parameters()], sum(kept)

    plain, saved = step(False)
    frugal, saved_less = step(True)
    for x, y in zip(plain, frugal, strict=True):
        torch.testing.assert_close(x, y)
    assert saved_less < 0.5 * saved


@pytest.mark.parametrize("name", FAMILIES)
def test_frozen_means_the_vit_alone(name: str) -> None:
    adapter = talking(small(model_name=name, freeze_backbone=True)).train()
    assert not any(module.training for module in adapter.vit.modules())
    rest = [part for part in adapter.children() if part is not adapter.vit]
    assert all(module.training for part in rest for module in part.modules())
    beside = {n for n, _ in adapter.named_parameters() if not n.startswith("vit.")}
    assert learning(adapter) == beside
    total(adapter(torch.rand(2, 3, 64, 64))).backward()
    got = {n for n, p in adapter.named_parameters() if p.grad is not None and p.grad.any()}
    assert got == beside  # the injectors too, through the frozen blocks
    assert adapter.prior.stem[0].norm.num_batches_tracked == 1


def test_the_last_blocks_and_the_norm_train() -> None:
    adapter = talking(small())
    assert adapter.num_blocks == 4
    everything = learning(adapter)
    adapter.set_trainable_blocks(2)
    of_vit = {name for name in learning(adapter) if name.startswith("vit.")}
    assert {name.split(".")[2] for name in of_vit if "blocks" in name} == {"2", "3"}
    assert {name.split(".")[1] for name in of_vit} == {"blocks", "norm"}
    adapter.eval().train()
    assert [block.attn.training for block in adapter.vit.blocks] == [False, False, True, True]
    total(adapter(torch.rand(2, 3, 64, 64))).backward()
    assert {name for name, p in adapter.named_parameters() if p.grad is not None} == learning(adapter)
    adapter.set_trainable_blocks(None)
    assert learning(adapter) == everything


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"feat_strides": (16, 32)}, r"feat_strides.*\(16, 32\).*\(8, 16, 32\) or \(4, 8, 16, 32\)"),
        ({"out_channels": (8, 8)}, "out_channels.*each of feat_strides"),
        ({"out_channels": (8, 0, 8)}, "out_channels.*above 0"),
        ({"freeze_backbone_epochs": -1}, "freeze_backbone_epochs"),
        ({"prior_channels": 0}, "prior_channels"),
        ({"num_interactions": 5}, "num_interactions.*1 to 4"),
        ({"num_interactions": 0}, "num_interactions.*1 to 4"),
        ({"pretrained": True}, "pretrained=False"),
        ({"model_name": "dinov3_giant"}, "dinov3_huge_plus"),
        ({"model_name": "dinov2_huge"}, "dinov2_giant"),
    ],
)
def test_bad_knobs_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**knobs)


@pytest.mark.parametrize(("strides", "beside_the_vit"), [((8, 16, 32), 5.21), ((4, 8, 16, 32), 5.83)])
def test_it_has_vit_adapters_size(strides: tuple[int, ...], beside_the_vit: float) -> None:
    """Theirs ends in a norm for each level; ours in a projection and a norm, which a neck has there."""
    adapter = DinoAdapter(pretrained=False, feat_strides=strides, out_channels=(256,) * len(strides))

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    theirs = count(adapter) - count(adapter.vit) - count(adapter.projections) + len(strides) * 2 * 384
    assert round(theirs / 1e6, 2) == beside_the_vit
    assert adapter.spans == ((0, 3), (3, 6), (6, 9), (9, 12))


def test_every_batch_norm_can_look_at_all_ranks() -> None:
    adapter = synchronise_batch_norm(small(**WITH_4), torch.device("cpu"))
    norms = [m for m in adapter.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3 + 3 + 4
    assert all(type(norm) is GlooSyncBatchNorm2d for norm in norms)


def outputs_of_one_picture(rank: int, images: Tensor) -> list[Tensor]:
    adapter = synchronise_batch_norm(talking(small()), torch.device("cpu")).train()
    return [x.detach() for x in adapter(images[rank : rank + 1])]


@pytest.mark.dist
def test_two_ranks_normalise_as_one(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 64, 96)
    parts = on_ranks(outputs_of_one_picture, 2, tmp_path, images)
    for level, whole in enumerate(talking(small()).train()(images)):
        together = torch.cat([part[level] for part in parts])
        torch.testing.assert_close(together, whole.detach(), atol=1e-4, rtol=1e-4)
