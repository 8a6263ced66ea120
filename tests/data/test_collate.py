import pytest
import torch

from src.data import collate
from src.structures import Target


def _pair(boxes, labels, image_id=1, hw=(50, 100)):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    target = Target(boxes, torch.tensor(labels, dtype=torch.int64), image_id, (480, 640))
    return torch.full((3, *hw), image_id, dtype=torch.uint8), target


def test_boxes_become_shares_of_the_input_and_rows_follow_their_picture():
    batch = collate(
        [
            _pair([[10, 10, 30, 40], [0, 0, 100, 50]], [4, 2], 5),
            _pair([], [], 6),
            _pair([[50, 0, 100, 25]], [1], 7),
        ]
    )
    assert batch.images.shape == (3, 3, 50, 100) and batch.images.dtype == torch.uint8
    assert batch.images[:, 0, 0, 0].tolist() == [5, 6, 7]
    t = batch.targets
    assert t.counts == (2, 0, 1) and t.image_ids == (5, 6, 7) and t.sizes_hw == ((480, 640),) * 3
    assert t.labels.tolist() == [4, 2, 1]
    expected = torch.tensor([[0.2, 0.5, 0.2, 0.6], [0.5, 0.5, 1, 1], [0.75, 0.25, 0.5, 0.5]])
    torch.testing.assert_close(t.boxes_cxcywh, expected)


@pytest.mark.parametrize("size", [1, 2])
def test_a_batch_without_objects_has_empty_tensors(size):
    t = collate([_pair([], [])] * size).targets
    assert t.boxes_cxcywh.shape == (0, 4) and t.labels.shape == (0,) and t.labels.dtype == torch.int64
    assert t.counts == (0,) * size


def test_different_sizes_are_refused():
    with pytest.raises(ValueError, match="30x40, 50x100 .*Resize"):
        collate([_pair([], []), _pair([], [], hw=(30, 40))])
