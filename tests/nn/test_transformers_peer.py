"""D-FINE against a peer that no one here wrote: the one in the library `transformers`, weight for weight."""

from pathlib import Path

import pytest
import torch
from transformers_names import build_theirs, give_weights

from src import assembly

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "dfine"
TOLERANCE = 1e-4


def twins(size, fill_by_name):
    experiment = assembly.load(CONFIGS / f"dfine_hgnetv2_{size}_coco.yml")
    ours = fill_by_name(assembly.build_model(experiment))
    theirs = build_theirs(size)
    give_weights(ours, theirs)
    return ours, theirs


def pictures(size_hw, count=2):
    return torch.rand(count, 3, *size_hw, generator=torch.Generator().manual_seed(1))


def farthest(ours, theirs):
    distance = (ours[:, None] - theirs[None]).abs().amax(-1)
    return max(distance.amin(0).max().item(), distance.amin(1).max().item())


@pytest.mark.parametrize(
    ("size", "size_hw"), [("n", (224, 320)), ("s", (256, 256)), ("m", (256, 256))], ids=["n", "s", "m"]
)
def test_the_same_weights_find_the_same(size, size_hw, fill_by_name):
    ours, theirs = twins(size, fill_by_name)
    images = pictures(size_hw)
    with torch.no_grad():
        found, golden = ours.eval()(images), theirs.eval()(pixel_values=images)
    assert golden.logits.std() > 0.1 and golden.pred_boxes.std() > 0.01
    for picture in range(len(images)):
        rows = torch.cat((found.logits[picture], found.boxes_cxcywh[picture]), -1)
        golden_rows = torch.cat((golden.logits[picture], golden.pred_boxes[picture]), -1)
        assert farthest(rows, golden_rows) < TOLERANCE
