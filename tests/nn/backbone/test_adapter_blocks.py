import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.nn.backbone import adapter_blocks
from src.nn.backbone.adapter_blocks import (
    NUM_POINTS,
    ConvFFN,
    Extractor,
    Injector,
    PyramidAttention,
    flatten_maps,
    split_maps,
)
from src.ops.deformable import make_grid

SHAPES = ((4, 6), (2, 3), (1, 2))
DIM, HEADS = 12, 3
CPU = torch.device("cpu")


def cells(shapes: tuple[tuple[int, int], ...]) -> int:
    return sum(h * w for h, w in shapes)


def lively(module: nn.Module) -> Any:
    """Random weights everywhere: offsets that differ from query to query, gains that are not 0."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module


def tokens(count: int, seed: int = 1) -> Tensor:
    return torch.randn(2, count, DIM, generator=torch.Generator().manual_seed(seed))


def cell(values: Tensor, start: int, shape: tuple[int, int], row: int, column: int) -> Tensor:
    """A head's value [c] at a cell of one level, zeros outside it; values [S, c]."""
    if 0 <= row < shape[0] and 0 <= column < shape[1]:
        return values[start + row * shape[1] + column]
    return torch.zeros_like(values[0])


def slow_read(values: Tensor, start: int, shape: tuple[int, int], x: float, y: float) -> Tensor:
    """The bilinear mean at (x, y), in cells from the level's first corner."""
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    total = torch.zeros_like(values[0])
    for row in (top, top + 1):
        for column in (left, left + 1):
            share = (1 - abs(y - 0.5 - row)) * (1 - abs(x - 0.5 - column))
            total = total + share * cell(values, start, shape, row, column)
    return total


def slow_attention(
    attention: PyramidAttention, queries: Tensor, centres: Tensor, memory: Tensor, shapes: Any
) -> Tensor:
    """Deformable DETR's equation 3, one query, head and point at a time."""
    width = DIM // HEADS
    values = attention.value_proj(memory)
    offsets = attention.sampling_offsets(queries).unflatten(-1, (HEADS, len(shapes), NUM_POINTS, 2))
    weights = attention.attention_weights(queries).unflatten(-1, (HEADS, -1)).softmax(-1)
    weights = weights.unflatten(-1, (len(shapes), NUM_POINTS))
    read = torch.zeros(*queries.shape[:2], HEADS, width)
    for b in range(queries.shape[0]):
        for q in range(queries.shape[1]):
            for head in range(HEADS):
                of_head = values[b, :, head * width : (head + 1) * width]
                for level, (h, w) in enumerate(shapes):
                    for p in range(NUM_POINTS):
                        dx, dy = offsets[b, q, head, level, p].tolist()
                        x, y = centres[q, 0].item() * w + dx, centres[q, 1].item() * h + dy
                        point = slow_read(of_head, cells(shapes[:level]), (h, w), x, y)
                        read[b, q, head] += weights[b, q, head, level, p] * point
    return attention.output_proj(read.flatten(2))


@pytest.mark.parametrize("sampling", ["bilinear", "gather"])
@torch.no_grad()
def test_attention_against_loops(sampling: Any) -> None:
    attention = lively(PyramidAttention(DIM, HEADS, len(SHAPES)))
    attention.sampling = sampling
    queries, memory, grid = tokens(5), tokens(cells(SHAPES), 2), make_grid(SHAPES, CPU)
    centres = torch.rand(5, 2, generator=torch.Generator().manual_seed(3))
    expected = slow_attention(attention, queries, centres, memory, SHAPES)
    assert expected.std() > 0.1
    given = attention(queries, centres, memory, grid)
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_attention_is_that_of_transformers() -> None:
    peer = pytest.importorskip(
        "transformers.models.deformable_detr.modeling_deformable_detr", reason="pip install transformers"
    )
    config = peer.DeformableDetrConfig(
        d_model=DIM, num_feature_levels=len(SHAPES), disable_custom_kernels=True
    )
    theirs = peer.DeformableDetrMultiscaleDeformableAttention(config, HEADS, NUM_POINTS).eval()
    ours = lively(PyramidAttention(DIM, HEADS, len(SHAPES)))
    theirs.load_state_dict(ours.state_dict())  # the same names and layouts
    queries, memory, grid = tokens(cells(SHAPES)), tokens(cells(SHAPES), 2), make_grid(SHAPES, CPU)
    expected, _ = theirs(
        queries,
        encoder_hidden_states=memory,
        reference_points=grid.centres[None, :, None].expand(2, -1, len(SHAPES), -1),
        spatial_shapes=torch.tensor(SHAPES),
        spatial_shapes_list=list(SHAPES),
        level_start_index=torch.tensor([0, 24, 30]),
    )
    torch.testing.assert_close(ours(queries, grid.centres, memory, grid), expected, atol=1e-5, rtol=1e-5)


def test_gradients_in_float64() -> None:
    attention = lively(PyramidAttention(4, 2, 2)).double()
    shapes = ((2, 3), (1, 2))
    grid = make_grid(shapes, CPU)
    inputs = [torch.randn(1, count, 4, dtype=torch.float64, requires_grad=True) for count in (2, 8)]
    names = [name for name, _ in attention.named_parameters()]

    def run(queries: Tensor, memory: Tensor, *weights: Tensor) -> Tensor:
        arguments = (queries, torch.tensor([[0.3, 0.6], [0.7, 0.2]]), memory, grid)
        return torch.func.functional_call(attention, dict(zip(names, weights, strict=True)), arguments)

    assert torch.autograd.gradcheck(run, (*inputs, *attention.parameters()))


def test_a_query_starts_around_its_own_place() -> None:
    """At first offsets do not depend on the query, and all points of a star count alike."""
    attention = PyramidAttention(DIM, HEADS, 1)
    with torch.no_grad():
        for linear in (attention.value_proj, attention.output_proj):
            linear.weight.copy_(torch.eye(DIM))
    grid = make_grid(((9, 9),), CPU)
    memory = torch.zeros(1, 81, DIM)
    memory[0, 4 * 9 + 4] = 1.0
    read = attention(tokens(81)[:1], grid.centres, memory, grid).reshape(9, 9, HEADS, -1)
    first = read[..., 0, 0]  # the first head looks to the right, 1 to 4 cells far
    expected = torch.zeros(9, 9)
    expected[4, :4] = 1 / NUM_POINTS
    torch.testing.assert_close(first.detach(), expected, atol=1e-5, rtol=0)


def test_points_are_placed_and_read_in_float32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    real = adapter_blocks.sample_values

    def watched(values: Any, shapes: Any, locations: Tensor, weights: Tensor, *rest: Any) -> Tensor:
        seen.extend([*(value.dtype for value in values), locations.dtype, weights.dtype])
        return real(values, shapes, locations, weights, *rest)

    monkeypatch.setattr(adapter_blocks, "sample_values", watched)
    attention = lively(PyramidAttention(DIM, HEADS, len(SHAPES)))
    grid = make_grid(SHAPES, CPU)
    with torch.autocast("cpu", torch.bfloat16):
        read = attention(tokens(cells(SHAPES)), grid.centres, tokens(cells(SHAPES), 2), grid)
    assert set(seen) == {torch.float32} and read.dtype == torch.bfloat16
    exact = attention(tokens(cells(SHAPES)), grid.centres, tokens(cells(SHAPES), 2), grid)
    assert (read - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_maps_become_tokens_and_maps_again() -> None:
    maps = [torch.randn(2, DIM, h, w) for h, w in SHAPES]
    flat, shapes = flatten_maps(maps)
    assert shapes == SHAPES and flat.shape == (2, cells(SHAPES), DIM)
    assert torch.equal(flat[:, 24 + 1 * 3 + 2], maps[1][:, :, 1, 2])
    assert all(torch.equal(x, y) for x, y in zip(split_maps(flat, shapes), maps, strict=True))


def test_the_feed_forward_mixes_each_level_by_itself() -> None:
    ffn = lively(ConvFFN(DIM, 4))
    x = tokens(cells(SHAPES))
    changed = x.clone()
    changed[:, 24 + 2] += 1.0  # row 0, column 2 of the second level
    moved = (ffn(changed, SHAPES) - ffn(x, SHAPES)).abs().sum((0, 2)) > 1e-6
    near = {(row, column) for row in (0, 1) for column in (1, 2)}
    expected = {24 + row * 3 + column for row, column in near}
    assert set(moved.nonzero().flatten().tolist()) == expected


def test_an_injector_says_nothing_at_first() -> None:
    injector = Injector(DIM, HEADS, len(SHAPES))
    patches, pyramid = tokens(24), tokens(cells(SHAPES), 2)
    arguments = (patches, make_grid(SHAPES[:1], CPU), pyramid, make_grid(SHAPES, CPU))
    assert torch.equal(injector(*arguments), patches)
    injector(*arguments).square().sum().backward()
    assert injector.gamma.grad.abs().sum() > 0
    assert not torch.allclose(lively(injector)(*arguments), patches)


def test_an_extractor_reads_patches_near_its_cell() -> None:
    extractor = Extractor(DIM, HEADS)
    pyramid, patches = tokens(cells(SHAPES)), tokens(24, 2).requires_grad_()
    grids = make_grid(SHAPES, CPU), make_grid(((4, 6),), CPU)
    out = extractor(pyramid, grids[0], patches, grids[1])
    assert out.shape == pyramid.shape
    assert not torch.allclose(extractor(pyramid, grids[0], patches + tokens(24, 4), grids[1]), out)
    out.square().sum().backward()
    assert all(p.grad is not None for p in extractor.parameters()) and patches.grad.any()
