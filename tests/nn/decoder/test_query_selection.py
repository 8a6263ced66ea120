"""Where queries may come from."""

import pytest
import torch

from src.nn.decoder.query_selection import candidate_anchors, candidate_ranges, candidate_tokens, may_propose

CPU = torch.device("cpu")


def slow_cells(shapes_hw, extent_hw):
    cells = []
    for level, (h, w) in enumerate(shapes_hw):
        for row in range(h):
            for column in range(w):
                cy, cx = (row + 0.5) / (h * extent_hw[0]), (column + 0.5) / (w * extent_hw[1])
                if 0.01 < cy < 0.99 and 0.01 < cx < 0.99:
                    cells.append((level, row, column, cx, cy, 0.05 * 2**level))
    return cells


@pytest.mark.parametrize(
    ("shapes_hw", "extent_hw"),
    [
        ([(80, 80), (40, 40), (20, 20)], (1.0, 1.0)),  # the outermost cells of the first lie in the margin
        ([(76, 80), (38, 40), (19, 20)], (1.0, 624 / 640)),
        ([(8, 4), (4, 2), (2, 1)], (40 / 64, 20 / 32)),
    ],
)
def test_candidates_against_loops(shapes_hw, extent_hw):
    ranges = candidate_ranges(shapes_hw, extent_hw)
    anchors = candidate_anchors(shapes_hw, extent_hw, ranges, CPU)
    expected = slow_cells(shapes_hw, extent_hw)
    assert anchors.shape == (len(expected), 4)
    slow = torch.tensor([(cx, cy, size, size) for *_, cx, cy, size in expected])
    torch.testing.assert_close(anchors.sigmoid(), slow, atol=1e-5, rtol=0)
    maps = [
        torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))[None]
        + torch.tensor([0.0, 1000.0 * level]).reshape(1, 2, 1, 1)
        for level, (h, w) in enumerate(shapes_hw)
    ]
    cells = torch.tensor([(row, column + 1000.0 * level) for level, row, column, *_ in expected])
    torch.testing.assert_close(candidate_tokens(maps, ranges)[0], cells)
    all_cells = torch.cat([x.flatten(2) for x in maps], 2)[0].T
    torch.testing.assert_close(all_cells[may_propose(shapes_hw, extent_hw, CPU)], cells)


@pytest.mark.parametrize("extent_hw", [(1 / 32, 1.0), (1.0, 1 / 32), (1 / 32, 1 / 32), (2 / 32, 9 / 32)])
def test_a_picture_of_a_few_pixels_has_a_candidate(extent_hw):
    shapes_hw = [(4, 4), (2, 2), (1, 1)]
    ranges = candidate_ranges(shapes_hw, extent_hw)
    anchors = candidate_anchors(shapes_hw, extent_hw, ranges, CPU)
    tokens = candidate_tokens([torch.rand(1, 2, h, w) for h, w in shapes_hw], ranges)
    assert 1 <= len(anchors) == tokens.shape[1]
    assert anchors.isfinite().all()


def test_anchors_are_finite_in_float16_and_for_many_levels():
    shapes_hw = [(64, 64), (32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    ranges = candidate_ranges(shapes_hw, (1.0, 1.0))
    assert candidate_anchors(shapes_hw, (1.0, 1.0), ranges, CPU).half().isfinite().all()
