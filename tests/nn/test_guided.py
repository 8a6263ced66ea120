"""The student under guidance: the same detector, whose maps can be seen."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from src.nn.backbone import DINOv3Backbone
from src.nn.backbone.lora import LoRA
from src.nn.backbone.vit import extract_maps
from src.nn.decoder import DFINETransformer
from src.nn.dfine import DFINE
from src.nn.encoder import HybridEncoder
from src.nn.guided import Guided, InitialViT
from src.nn.layers import flatten_map
from src.structures import GuidedOutput

TEACHER_DIM = 10


def make_backbone(**knobs: Any) -> DINOv3Backbone:
    shape = {"embed_dim": 24, "depth": 3, "num_heads": 2, "layer_scale": 1.0, "out_channels": (16, 16, 16)}
    return DINOv3Backbone(pretrained=False, **{**shape, **knobs})


def make_student(backbone: dict[str, Any] | None = None, **encoder: Any) -> DFINE:
    torch.manual_seed(0)
    trunk = make_backbone(**(backbone or {}))
    neck = HybridEncoder(trunk.levels, hidden_dim=16, dim_feedforward=16, nhead=2, depth_mult=0.34, **encoder)
    head = DFINETransformer(
        neck.levels, 3, hidden_dim=16, nhead=2, dim_feedforward=16, num_layers=1, num_queries=5,
        num_denoising=0, num_points=(1, 1, 1),
    )  # fmt: skip
    return DFINE(trunk, neck, head).train()


def make_guided(student: DFINE, teacher_dim: int | None = TEACHER_DIM, *, anchored: bool = True) -> Guided:
    torch.manual_seed(1)
    return Guided(student, teacher_dim, anchored=anchored)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(2))


def call(model: Guided, images: Tensor) -> GuidedOutput:
    output = model(images)
    assert isinstance(output, GuidedOutput)
    return output


def test_the_student_gives_what_it_gives_alone(images: Tensor) -> None:
    student, alone = make_student(), make_student()
    output = call(make_guided(student), images)
    wanted = alone(images)
    assert torch.equal(output.detected.layers[-1].logits, wanted.layers[-1].logits)
    assert torch.equal(output.images, images)
    assert student.state_dict().keys() == alone.state_dict().keys()
    assert not any(module._forward_hooks for module in student.modules())


@pytest.mark.parametrize("levels", [(2,), (0, 2), (2, 0), (1,)])
def test_the_coarsest_attended_map_is_projected_cell_by_cell(
    images: Tensor, levels: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    guided = make_guided(make_student(use_encoder_idx=levels))
    coarsest = max(levels)
    attention = guided.student.encoder.encoder[levels.index(coarsest)]
    made: list[Tensor] = []
    forward = attention.forward
    monkeypatch.setattr(attention, "forward", lambda x: made.append(forward(x)) or made[-1])
    output = call(guided, images)
    height, width = 96 // (8, 16, 32)[coarsest], 64 // (8, 16, 32)[coarsest]
    assert output.projected is not None and guided.projector is not None
    assert output.projected.shape == (2, TEACHER_DIM, height, width)
    wanted = guided.projector(flatten_map(made[0]))  # [B, S, E]
    torch.testing.assert_close(flatten_map(output.projected), wanted)


def test_without_attention_the_encoder_s_coarsest_map_is_projected(images: Tensor) -> None:
    guided = make_guided(make_student(use_encoder_idx=()))
    guided.student.eval()
    output = guided(images)
    student: Any = guided.student
    with torch.no_grad():
        coarsest = student.encoder(student.backbone(student._normalised(images)))[-1]
        wanted = guided.projector(flatten_map(coarsest)) if guided.projector else None
    torch.testing.assert_close(flatten_map(output.projected), wanted)


def test_gradient_checkpointing_changes_neither_map_nor_gradients(images: Tensor) -> None:
    found = []
    for checkpointing in (False, True):
        knobs = {"gradient_checkpointing": checkpointing}
        guided = make_guided(make_student(knobs, **knobs))
        output = call(guided, images)
        assert output.projected is not None and output.tokens is not None
        (output.projected.square().mean() + output.tokens.square().mean()).backward()
        gradients = {name: p.grad for name, p in guided.named_parameters() if p.grad is not None}
        found.append((output.projected.detach(), gradients))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert "student.backbone.vit.patch_embed.proj.weight" in found[0][1]
    torch.testing.assert_close(found[0][1], found[1][1])


def test_tokens_are_those_of_the_normalised_and_padded_pictures() -> None:
    guided = make_guided(make_student({"interaction_indexes": (0, 1, 2)}), None)
    images = torch.rand(1, 3, 40, 70)
    output = call(guided, images)
    backbone: Any = guided.student.backbone
    assert output.projected is None and output.tokens is not None and output.vit_images is not None
    assert output.vit_images.shape == (1, 3, 64, 96)
    mean, std = (torch.tensor(x)[:, None, None] for x in (backbone.image_mean, backbone.image_std))
    torch.testing.assert_close(output.vit_images[..., :40, :70], (images - mean) / std)
    assert torch.equal(output.tokens, extract_maps(backbone.vit, output.vit_images, (0, 1, 2))[-1])
    assert output.tokens.requires_grad


@pytest.mark.parametrize(
    "knobs", [{}, {"interaction_indexes": (0, 2), "window": 2}, {"gradient_checkpointing": True}]
)
def test_the_initial_vit_gives_the_first_tokens_for_ever(images: Tensor, knobs: dict[str, Any]) -> None:
    guided = make_guided(make_student(knobs), None)
    backbone: Any = guided.student.backbone
    initial = InitialViT(backbone)
    first = call(guided, images)
    assert first.tokens is not None and first.vit_images is not None
    assert torch.equal(initial(first.vit_images), first.tokens)
    with torch.no_grad():
        for parameter in backbone.vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    later = call(guided, images)
    assert later.tokens is not None and not torch.allclose(later.tokens, first.tokens, atol=1e-3)
    assert torch.equal(initial(first.vit_images), first.tokens)
    assert not any(p.requires_grad for p in initial.parameters())
    assert not any(module.training for module in initial.modules())


def test_the_initial_vit_has_no_factors(images: Tensor) -> None:
    pytest.importorskip("peft")
    plain = make_student()
    student = make_student({"lora": LoRA(rank=2)})
    with torch.no_grad():
        for name, parameter in student.backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    backbone: Any = student.backbone
    initial = InitialViT(backbone)
    assert not [name for name in initial.state_dict() if "lora" in name or "base_layer" in name]
    bare = InitialViT(make_backbone())
    bare.load_state_dict(initial.state_dict())
    vit_images = call(make_guided(plain, None), images).vit_images
    tokens = call(make_guided(student, None), images).tokens
    assert vit_images is not None and tokens is not None
    assert torch.equal(initial(vit_images), bare(vit_images))
    assert not torch.allclose(initial(vit_images), tokens, atol=1e-3)


def test_a_copy_looks_at_its_own_maps(images: Tensor) -> None:
    guided = make_guided(make_student())
    twin = copy.deepcopy(guided)
    with torch.no_grad():
        for parameter in guided.parameters():
            parameter.zero_()
    output = call(twin, images)
    assert output.projected is not None and output.tokens is not None
    assert output.projected.abs().max() > 0 and output.tokens.abs().max() > 0
