"""What of a step's activations is kept: with the ViT frozen, and with it checkpointed."""

import pytest
import torch
from torch import Tensor

from benchmarks.freezing import FROZEN, FULL, Mode, Trainee
from src.nn.backbone.dinov3_backbone import DINOv3Backbone
from src.nn.backbone.lora import LoRA
from src.solver.batch_size import kept_bytes

SMALL = {"pretrained": False, "embed_dim": 48, "depth": 4, "num_heads": 3, "layer_scale": 0.5}
IMAGES = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def trainee() -> Trainee:
    """dfine_dinov3_s_coco with its twelve blocks; at 640 pixels the ViT weighs more and the shares fall."""
    return Trainee(size=256)


def test_a_frozen_vit_halves_what_a_step_keeps(trainee: Trainee) -> None:
    trainee.enter(FULL)
    full = kept_bytes(trainee.model, trainee.loss)
    trainee.enter(FROZEN)
    assert kept_bytes(trainee.model, trainee.vit_maps) == 0
    assert kept_bytes(trainee.model, trainee.loss) <= 0.5 * full


def test_a_checkpointed_vit_keeps_a_quarter_at_most(trainee: Trainee) -> None:
    trainee.enter(FULL)
    full = kept_bytes(trainee.model, trainee.vit_maps)
    trainee.enter(Mode("", vit=True))
    assert 0 < kept_bytes(trainee.model, trainee.vit_maps) <= 0.25 * full


def small(**knobs: object) -> DINOv3Backbone:
    torch.manual_seed(0)
    return DINOv3Backbone(**{**SMALL, "out_channels": (8, 8, 8), **knobs}).train()


def gradients(backbone: DINOv3Backbone, images: Tensor = IMAGES) -> dict[str, Tensor | None]:
    sum(x.square().sum() for x in backbone(images)).backward()
    return {name: p.grad for name, p in backbone.named_parameters()}


@pytest.mark.parametrize("blocks", [None, 2])
@pytest.mark.parametrize("knobs", [{}, {"lora": LoRA(rank=2)}, {"interaction_indexes": (0, 2, 3)}], ids=str)
def test_gradients_are_the_same(knobs: dict[str, object], blocks: int | None) -> None:
    plain, other = small(**knobs), small(**knobs, gradient_checkpointing=True)
    plain.set_trainable_blocks(blocks)
    other.set_trainable_blocks(blocks)
    expected, given = gradients(plain), gradients(other)
    assert any(value is not None for name, value in expected.items() if name.startswith("vit."))
    for name, value in expected.items():
        if value is None:
            assert given[name] is None, name
        else:
            torch.testing.assert_close(given[name], value)


@pytest.mark.parametrize("blocks", [None, 2, 0])
def test_only_blocks_that_learn_are_computed_anew(blocks: int | None) -> None:
    backbone = small(gradient_checkpointing=True)
    backbone.set_trainable_blocks(blocks)
    counts = [0] * 4

    def count(index: int) -> None:
        counts[index] += 1

    for index, block in enumerate(backbone.vit.blocks):
        block.attn.register_forward_pre_hook(lambda *_, index=index: count(index))
    gradients(backbone)
    learning = 4 if blocks is None else blocks
    assert counts == [1] * (4 - learning) + [2] * learning


def test_it_is_off_in_evaluation_and_without_gradients() -> None:
    backbone = small(gradient_checkpointing=True)
    assert backbone.vit.grad_checkpointing and not small().vit.grad_checkpointing
    assert not backbone.eval().vit.grad_checkpointing
    assert backbone.train().vit.grad_checkpointing
    with torch.no_grad():
        given, expected = backbone(IMAGES), small()(IMAGES)
    assert all(torch.equal(x, y) for x, y in zip(given, expected, strict=True))
