"""Final detections."""

import pytest
import torch

from src.nn.postprocessor import DFINEPostProcessor
from src.structures import FinalOutput


def test_best_pairs_against_a_slow_sort():
    torch.manual_seed(0)
    output = FinalOutput(torch.randn(2, 6, 3), torch.rand(2, 6, 4))
    sizes_hw = torch.tensor([[100, 200], [50, 30]])
    found = DFINEPostProcessor(3, num_top_queries=7)(output, sizes_hw)
    for picture in range(2):
        pairs = [(float(output.logits[picture, q, c].sigmoid()), q, c) for q in range(6) for c in range(3)]
        height, width = sizes_hw[picture].tolist()
        for place, (score, q, c) in enumerate(sorted(pairs, reverse=True)[:7]):
            cx, cy, w, h = output.boxes_cxcywh[picture, q].tolist()
            box = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
            assert found.scores[picture, place].item() == pytest.approx(score, abs=1e-6)
            assert found.labels[picture, place] == c
            torch.testing.assert_close(found.boxes_xyxy_px[picture, place], torch.tensor(box))


def test_fewer_pairs_than_asked_for():
    found = DFINEPostProcessor(3)(FinalOutput(torch.randn(1, 2, 3), torch.rand(1, 2, 4)), torch.ones(1, 2))
    assert found.scores.shape == (1, 6)


@pytest.mark.parametrize(("num_classes", "kept"), [(0, 300), (3, 0)])
def test_bad_numbers_are_refused(num_classes, kept):
    with pytest.raises(ValueError, match="at least 1"):
        DFINEPostProcessor(num_classes, num_top_queries=kept)
