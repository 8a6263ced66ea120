"""Windowed attention against one attention over all tokens whose mask keeps the windows apart."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.eva import Eva
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from src.nn.backbone.dinov3_backbone import DINOv3Backbone
from src.nn.backbone.lora import LoRA
from src.nn.backbone.vit import ViTShape, build_vit, extract_maps
from src.nn.backbone.windows import Windows

SMALL = {"pretrained": False, "embed_dim": 48, "depth": 4, "num_heads": 3, "layer_scale": 0.5}
PREFIX = 5


def small(**knobs: Any) -> DINOv3Backbone:
    torch.manual_seed(0)
    return DINOv3Backbone(**{**SMALL, "out_channels": (8, 8, 8), "interaction_indexes": (1, 3), **knobs})


def small_vit() -> Eva:
    torch.manual_seed(0)
    vit = build_vit("dinov3_small", ViTShape(48, 4, 3, 0.5)).eval()
    with torch.no_grad():
        for token in (vit.cls_token, vit.reg_token):
            token.normal_()  # as large as patches, and attention sharp, so that a wrong share of it shows
        for block in vit.blocks:
            block.attn.qkv.weight.mul_(10)
    return vit


def window_of_each_patch(grid_hw: tuple[int, int], num: int) -> Tensor:
    """[h * w] which window a patch lies in, counted out."""
    height, width = grid_hw
    return torch.tensor(
        [
            row * num // height * num + column * num // width
            for row in range(height)
            for column in range(width)
        ]
    )


def masked_maps(vit: Eva, images: Tensor, taps: tuple[int, ...], num: int) -> list[Tensor]:
    """The same maps from global attention over every copy and every patch, told by a mask who sees whom."""
    batch, _, height, width = images.shape
    grid_hw = (height // 16, width // 16)
    of_patch = window_of_each_patch(grid_hw, num)
    window = torch.cat((torch.arange(num**2).repeat_interleave(PREFIX), of_patch))
    same = window[:, None] == window
    patches = vit.patch_embed(images).flatten(1, 2)
    prefix = torch.cat((vit.cls_token, vit.reg_token), 1).expand(batch, -1, -1)
    rope = vit.rope.get_embed(grid_hw)
    maps = []
    for index, block in enumerate(vit.blocks[: taps[-1] + 1]):
        if index in taps:
            tokens = block(torch.cat((prefix, patches), 1), rope)
            prefix, patches = tokens[:, :PREFIX], tokens[:, PREFIX:]
            maps.append(vit.norm(patches).transpose(1, 2).unflatten(2, grid_hw))
            continue
        if index == 0 or index - 1 in taps:
            copies = prefix.repeat(1, num**2, 1)
        many = copy.deepcopy(block)
        many.attn.num_prefix_tokens = copies.shape[1]
        tokens = many(torch.cat((copies, patches), 1), rope, attn_mask=same)
        copies, patches = tokens.split((copies.shape[1], patches.shape[1]), 1)
        prefix = copies.unflatten(1, (num**2, PREFIX)).mean(1)
    return maps


@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("taps", [(1,), (0, 3), (1, 2, 3), (3,)])
def test_it_is_global_attention_under_a_mask(taps: tuple[int, ...], num: int) -> None:
    vit = small_vit()
    images = torch.randn(2, 3, 16 * num * 2, 16 * num * 3)
    with torch.no_grad():
        found = extract_maps(vit, images, taps, num)
        for one, expected in zip(found, masked_maps(vit, images, taps, num), strict=True):
            torch.testing.assert_close(one, expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(found[-1], extract_maps(vit, images, taps)[-1], atol=1e-2)


@pytest.mark.parametrize("taps", [(3,), (0, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("training", [False, True])
def test_without_windows_it_is_timms_own_forward_pass(taps: tuple[int, ...], training: bool) -> None:
    vit = small_vit().train(training)
    images = torch.randn(2, 3, 32, 48)
    expected = vit.forward_intermediates(images, indices=list(taps), norm=True, intermediates_only=True)
    for one, other in zip(extract_maps(vit, images, taps), expected, strict=True):
        assert torch.equal(one, other) and one.stride() == other.stride()


@settings(deadline=None, max_examples=50)
@given(
    num=st.integers(1, 4),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    batch=st.integers(1, 3),
    prefix=st.integers(1, 5),
)
def test_every_token_finds_its_window_and_its_way_back(
    num: int, rows: int, columns: int, batch: int, prefix: int
) -> None:
    grid_hw = (num * rows, num * columns)
    windows = Windows(num, grid_hw, prefix)
    tokens = torch.randn(batch, prefix + grid_hw[0] * grid_hw[1], 2)
    split = windows.split(tokens)
    torch.testing.assert_close(windows.join(split), tokens)
    positions = windows.split_positions(tokens[0, prefix:], batch)[:, 0]
    of_patch = window_of_each_patch(grid_hw, num)
    for index, sequence in enumerate(split):
        inside = of_patch == index % num**2
        picture = tokens[index // num**2]
        assert torch.equal(sequence, torch.cat((picture[:prefix], picture[prefix:][inside])))
        assert torch.equal(positions[index], tokens[0, prefix:][inside])


def test_copies_of_a_prefix_token_are_averaged() -> None:
    windows = Windows(2, (2, 2), 1)
    sequences = torch.tensor([[[1.0], [10.0]], [[2.0], [20.0]], [[4.0], [30.0]], [[5.0], [40.0]]])
    assert torch.equal(windows.join(sequences)[0, :, 0], torch.tensor([3.0, 10.0, 20.0, 30.0, 40.0]))


@settings(deadline=None, max_examples=12)
@given(height=st.integers(1, 5), width=st.integers(1, 5), batch=st.integers(1, 3))
def test_any_size_and_any_batch(height: int, width: int, batch: int) -> None:
    backbone = small(window=2).eval()
    images = torch.randn(batch, 3, 32 * height, 32 * width)
    with torch.no_grad():
        together = backbone(images)
        alone = backbone(images[-1:])
    for one, other, level in zip(together, alone, backbone.levels, strict=True):
        assert one.shape == (batch, 8, 32 * height // level.stride, 32 * width // level.stride)
        torch.testing.assert_close(one[-1:], other, atol=1e-5, rtol=1e-5)


def gradients(backbone: DINOv3Backbone, images: Tensor) -> dict[str, Tensor]:
    sum(x.square().sum() for x in backbone(images)).backward()
    return {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("blocks", [None, 0, 2])
@pytest.mark.parametrize("knobs", [{}, {"lora": LoRA(rank=2)}], ids=str)
def test_it_trains_in_part_and_checkpointed(knobs: dict[str, Any], blocks: int | None) -> None:
    if knobs:
        pytest.importorskip("peft", reason="pip install -r requirements-lora.txt")
    images = torch.randn(2, 3, 64, 96)
    plain, other = (small(window=2, gradient_checkpointing=on, **knobs).train() for on in (False, True))
    for backbone in (plain, other):
        backbone.set_trainable_blocks(blocks)
    expected, found = gradients(plain, images), gradients(other, images)
    assert set(expected) == set(found) == {n for n, p in plain.named_parameters() if p.requires_grad}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_the_mode_changes_nothing_and_the_knob_no_name() -> None:
    backbone = small(window=2)
    images = torch.randn(1, 3, 64, 64)
    assert list(backbone.state_dict()) == list(small().state_dict())
    modes = [backbone.train(mode)._maps(images) for mode in (True, False)]
    assert all(torch.equal(x, y) for x, y in zip(*modes, strict=True))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"window": 3}, r"window: 3; 1 \(off\) or 2"),
        ({"window": 0}, r"window: 0; 1 \(off\) or 2"),
        ({"window": 2, "interaction_indexes": (0, 1, 2)}, r"\(0, 1, 2\) taps every block"),
    ],
)
def test_what_can_not_be_is_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**knobs)


def attention_products(backbone: DINOv3Backbone, images: Tensor) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        backbone(images)
    counts = counter.get_flop_counts()["Global"]
    return sum(n for op, n in counts.items() if "bmm" in str(op))


def test_the_attention_products_that_are_left() -> None:
    """A block's queries by keys and attention by values are 2 * 2 * D * tokens ** 2, in each window anew."""
    images = torch.randn(1, 3, 128, 128)
    whole, window = 4 * 48 * (PREFIX + 64) ** 2, 4 * (4 * 48) * (PREFIX + 16) ** 2
    assert attention_products(small().eval(), images) == 4 * whole
    assert attention_products(small(window=2).eval(), images) == 2 * whole + 2 * window


class GraphCounter:
    """A compiler that only counts what it is asked to compile."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize("window", [1, 2])
def test_one_graph_is_compiled_for_all_sizes(window: Any) -> None:
    torch.compiler.reset()
    plain, compiled = (small(window=window, depth=2, interaction_indexes=(1,)).train() for _ in range(2))
    counter = GraphCounter()
    compiled.compile(backend=counter, dynamic=True, fullgraph=True)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for size in ((64, 96), (96, 64), (128, 128)):
        images = torch.randn(2, 3, *size)
        for one, other in zip(compiled(images), plain(images), strict=True):
            torch.testing.assert_close(one, other)
    assert counter.graphs == 1


def test_the_exported_graph_takes_another_batch(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    runtime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    backbone = small(window=2, depth=2, interaction_indexes=(1,)).eval()
    path = tmp_path / "backbone.onnx"
    batch = torch.export.Dim("N")
    torch.onnx.export(
        backbone,
        (torch.randn(2, 3, 64, 96),),
        path,
        dynamo=True,
        dynamic_shapes=({0: batch},),
        verbose=False,
    )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = torch.randn(3, 3, 64, 96)
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        for one, expected in zip(found, backbone(images), strict=True):
            torch.testing.assert_close(torch.from_numpy(one), expected, atol=1e-4, rtol=1e-4)
