"""Contrastive denoising: layout, noise, visibility."""

import pytest
import torch

from src.nn.decoder.denoising import blocked_pairs, make_noised_queries

CLASSES = 5
QUIET = {"num_denoising": 12, "label_noise_ratio": 0.0, "box_noise_scale": 0.0}


@pytest.mark.parametrize("counts", [(3, 0, 1), (1,), (2, 2)])
def test_layout_without_noise(counts, make_targets):
    targets = make_targets(counts)
    noised = make_noised_queries(targets, CLASSES, **QUIET)
    most = max(counts)
    assert (noised.max_count, noised.num_groups) == (most, 12 // most)
    assert noised.labels.shape == (len(counts), noised.num_groups * 2 * most)
    start = 0
    for picture, count in enumerate(counts):
        labels, boxes = targets.labels[start : start + count], targets.boxes_cxcywh[start : start + count]
        for copy in range(2 * noised.num_groups):
            rows = slice(copy * most, copy * most + count)
            assert torch.equal(noised.labels[picture, rows], labels)
            torch.testing.assert_close(noised.boxes_cxcywh[picture, rows], boxes)
            padding = slice(copy * most + count, (copy + 1) * most)
            assert (noised.labels[picture, padding] == CLASSES).all()
            assert (noised.boxes_cxcywh[picture, padding] == 0).all()
        start += count


def test_a_batch_without_objects_is_all_padding(make_targets):
    noised = make_noised_queries(make_targets((0, 0)), CLASSES, **QUIET)
    assert (noised.max_count, noised.num_groups) == (1, 12)
    assert noised.labels.shape == (2, 24) and (noised.labels == CLASSES).all()


def test_many_objects_still_get_one_group(make_targets):
    noised = make_noised_queries(make_targets((20, 1)), CLASSES, **QUIET)
    assert (noised.max_count, noised.num_groups) == (20, 1)


def test_edges_move_by_the_stated_amount(make_targets):
    """Positive copies' edges by less than `scale` half sizes, negative ones' by one to two times that."""
    targets = make_targets((40,))
    targets = targets._replace(boxes_cxcywh=targets.boxes_cxcywh * 0.2 + 0.4)  # nothing is clipped or flipped
    scale = 0.4
    noised = make_noised_queries(
        targets, CLASSES, num_denoising=200, label_noise_ratio=0.0, box_noise_scale=scale
    )
    boxes = noised.boxes_cxcywh.reshape(5, 2, 40, 4)
    true = targets.boxes_cxcywh
    half = true[:, 2:] / 2
    for copies, low, high in ((boxes[:, 0], 0.0, scale), (boxes[:, 1], scale, 2 * scale)):
        for sign in (-1, 1):
            edge = copies[..., :2] + sign * copies[..., 2:] / 2
            moved = (edge - (true[:, :2] + sign * half)).abs() / half
            assert moved.min() >= low - 1e-4 and moved.max() <= high + 1e-4
            assert moved.max() - moved.min() > 0.9 * (high - low)


def test_boxes_stay_in_the_picture_and_keep_a_size(make_targets):
    noised = make_noised_queries(
        make_targets((30, 3)), CLASSES, num_denoising=100, label_noise_ratio=0.5, box_noise_scale=3.0
    )
    centre, size = noised.boxes_cxcywh.chunk(2, -1)
    assert (size >= 0).all()
    assert (centre - size / 2 >= -1e-6).all() and (centre + size / 2 <= 1 + 1e-6).all()


def test_half_of_label_noise_ratio_flips(make_targets):
    torch.manual_seed(0)
    targets = make_targets((50, 50), num_classes=80)
    noised = make_noised_queries(targets, 80, num_denoising=500, label_noise_ratio=0.5, box_noise_scale=1.0)
    changed = noised.labels.reshape(2, -1, 50) != targets.labels.reshape(2, 1, 50)
    assert 0.2 < changed.float().mean() < 0.3
    assert noised.labels.max() < 80


def test_who_sees_whom():
    groups, most, queries = 2, 2, 3
    blocked = blocked_pairs(queries, groups, most, torch.device("cpu"))
    noised = groups * 2 * most
    for row in range(noised + queries):
        for column in range(noised + queries):
            group = [min(i // (2 * most), groups) for i in (row, column)]
            # the decoder's own queries are seen by all; noised ones by their own group alone
            assert blocked[row, column] == (column < noised and group[0] != group[1])
