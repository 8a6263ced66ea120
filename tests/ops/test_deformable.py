"""Deformable sampling against loops."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from src.ops.deformable import arrange_values, make_grid, sample_values, star_offsets

SHAPES = [(5, 7), (3, 4)]
POINTS = (2, 3)
HEADS, CHANNELS = 2, 3


def make_case(batch=2, queries=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(*shape, generator=generator, dtype=dtype)

    memory = rand(batch, sum(h * w for h, w in SHAPES), HEADS * CHANNELS)
    locations = rand(batch, queries, HEADS, sum(POINTS), 2) * 1.6 - 0.3  # some points lie outside
    weights = rand(batch, queries, HEADS, sum(POINTS))
    return memory, locations, weights


def sample(memory, locations, weights, sampling):
    values = arrange_values(memory, SHAPES, HEADS, sampling)
    return sample_values(values, SHAPES, locations, weights, POINTS, sampling)


def read_cell(memory, batch, head, level, row, column):
    h, w = SHAPES[level]
    if not (0 <= row < h and 0 <= column < w):
        return torch.zeros(CHANNELS)
    start = sum(a * b for a, b in SHAPES[:level])
    return memory[batch, start + row * w + column, head * CHANNELS : (head + 1) * CHANNELS]


def slow_bilinear(memory, batch, head, level, x, y):
    h, w = SHAPES[level]
    column, row = x * w - 0.5, y * h - 0.5
    total = torch.zeros(CHANNELS)
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            share = (1 - abs(row - i)) * (1 - abs(column - j))
            total = total + share * read_cell(memory, batch, head, level, i, j)
    return total


def slow_nearest(memory, batch, head, level, x, y):
    h, w = SHAPES[level]
    row, column = min(max(math.floor(y * h), 0), h - 1), min(max(math.floor(x * w), 0), w - 1)
    return read_cell(memory, batch, head, level, row, column)


@pytest.mark.parametrize(
    ("sampling", "slow"), [("bilinear", slow_bilinear), ("gather", slow_bilinear), ("nearest", slow_nearest)]
)
def test_sampling_against_loops(sampling, slow):
    memory, locations, weights = make_case()
    expected = torch.zeros(2, 4, HEADS * CHANNELS)
    for b in range(2):
        for q in range(4):
            for head in range(HEADS):
                for p in range(sum(POINTS)):
                    x, y = locations[b, q, head, p].tolist()
                    read = slow(memory, b, head, int(p >= POINTS[0]), x, y)
                    expected[b, q, head * CHANNELS : (head + 1) * CHANNELS] += weights[b, q, head, p] * read
    torch.testing.assert_close(sample(memory, locations, weights, sampling), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_gather_equals_bilinear_far_outside_too(batch):
    memory, locations, weights = make_case(batch)
    locations = locations * 50 - 20
    locations[:, 0] = 0.5
    torch.testing.assert_close(
        sample(memory, locations, weights, "gather"),
        sample(memory, locations, weights, "bilinear"),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("sampling", ["bilinear", "gather"])
def test_gradient(sampling):
    memory, locations, weights = make_case(1, 2, torch.float64)
    inputs = tuple(x.requires_grad_() for x in (memory, locations, weights))
    assert torch.autograd.gradcheck(lambda *x: sample(*x, sampling), inputs)


def test_no_queries():
    memory, locations, weights = make_case(queries=0)
    for sampling in ("bilinear", "gather", "nearest"):
        assert sample(memory, locations, weights, sampling).shape == (2, 0, HEADS * CHANNELS)


def test_half_precision_values_are_sampled_in_float32():
    memory, locations, weights = make_case()
    for sampling in ("bilinear", "gather", "nearest"):
        assert sample(memory.half(), locations, weights, sampling).dtype == torch.float32


def test_a_grid_by_hand():
    grid = make_grid([(1, 2), (2, 1)], torch.device("cpu"))
    assert grid.shapes_hw == ((1, 2), (2, 1))
    expected = torch.tensor([[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]])
    assert torch.equal(grid.centres, expected)
    assert torch.equal(grid.cells_wh, torch.tensor([[0.5, 1.0], [1.0, 0.5]]))


@pytest.mark.parametrize("sampling", ["bilinear", "gather", "nearest"])
def test_a_cell_read_at_its_centre_gives_itself(sampling):
    memory, _, _ = make_case(1)
    grid = make_grid(SHAPES, torch.device("cpu"))
    first = SHAPES[0][0] * SHAPES[0][1]
    places = torch.cat((grid.centres[:first, None].expand(-1, 2, -1), torch.zeros(first, 3, 2)), 1)
    weights = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]).expand(1, first, HEADS, 5)
    locations = places[None, :, None].expand(1, first, HEADS, 5, 2)
    read = sample(memory, locations, weights, sampling)
    torch.testing.assert_close(read, memory[:, :first], atol=1e-5, rtol=0)


def test_offsets_form_a_star():
    offsets = star_offsets(4, (2, 1))
    assert offsets.shape == (4, 3, 2)
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    steps = torch.tensor([1.0, 2.0, 1.0])
    torch.testing.assert_close(offsets, directions[:, None] * steps[:, None], atol=1e-6, rtol=0)
    diagonal = star_offsets(8, (3,))[1]  # as far along both sides as the others along one
    torch.testing.assert_close(diagonal, torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))


class Rounding(TorchDispatchMode):
    """Rounds floats that are calculated to bfloat16's digits, as a runtime does that is asked for them."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.float32:
            return found.bfloat16().float()
        return found


@pytest.mark.parametrize("sampling", ["gather", "nearest"])
def test_cells_are_found_in_bfloat16(sampling):
    shapes = [(32, 32), (16, 16)]  # more cells than bfloat16 has whole numbers
    grid = make_grid(shapes, torch.device("cpu"))
    memory = torch.randn(1, len(grid.centres), 2, generator=torch.Generator().manual_seed(0))
    memory = memory.bfloat16().float()
    for level, centres in enumerate(grid.centres.split([h * w for h, w in shapes])):
        weights = torch.zeros(1, len(centres), 1, 2)
        weights[..., level] = 1
        locations = centres[None, :, None, None].expand(-1, -1, -1, 2, -1)
        with Rounding():
            values = arrange_values(memory, shapes, 1, sampling)
            found = sample_values(values, shapes, locations, weights, (1, 1), sampling)
        start = level * 32 * 32
        assert torch.equal(found, memory[:, start : start + len(centres)])
