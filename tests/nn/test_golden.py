"""D-FINE-N and -L against outputs of upstream's own code (../shared/parity)."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from src.nn.backbone.hgnetv2 import HGNetv2
from src.nn.decoder import DFINETransformer
from src.nn.dfine import DFINE
from src.nn.encoder import HybridEncoder
from src.nn.postprocessor import DFINEPostProcessor
from src.nn.state_dict import from_upstream
from src.structures import FinalOutput

NOT_IN_COCO = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = torch.tensor([i for i in range(1, 91) if i not in NOT_IN_COCO])
TOLERANCE = 1e-4


def build(size):
    if size == "n":
        backbone = HGNetv2(name="B0", return_idx=(2, 3), use_lab=True)
        encoder = HybridEncoder(
            backbone.levels,
            hidden_dim=128,
            use_encoder_idx=(1,),
            dim_feedforward=512,
            expansion=0.34,
            depth_mult=0.5,
        )
        knobs = {"hidden_dim": 128, "dim_feedforward": 512, "num_layers": 3, "num_points": (6, 6)}
    else:
        backbone = HGNetv2(name="B4", freeze_at=0, freeze_norm=True)
        encoder, knobs = HybridEncoder(backbone.levels), {}
    return DFINE(backbone, encoder, DFINETransformer(encoder.levels, 80, **knobs)).eval()


def upstream_tensors(folder, size, fill):
    shapes = json.loads((folder / f"dfine_hgnetv2_{size}_keys.json").read_text())
    numbers = {"up": 0.5, "reg_scale": 4.0}
    state = {
        name: torch.full(shape, numbers.get(name.rsplit(".", 1)[-1], 0.0)) for name, shape in shapes.items()
    }
    return fill.fill_state_dict(state)


def nearest(ours, golden):
    """For every row of the one the distance to the nearest row of the other, and the other way round."""
    distance = (ours[:, None] - golden[None]).abs().amax(-1)
    return max(distance.amin(0).max().item(), distance.amin(1).max().item())


@pytest.mark.parametrize("size", ["n", "l"])
def test_a_picture_through_the_published_architecture(size, shared):
    folder = shared / "parity"
    spec = importlib.util.spec_from_file_location("parity_fill", folder / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    golden = {
        k: torch.from_numpy(np.asarray(v))
        for k, v in np.load(folder / f"dfine_hgnetv2_{size}_forward.npz").items()
    }
    model = build(size)
    model.load_state_dict(from_upstream(upstream_tensors(folder, size, fill), up=0.5, reg_scale=4.0))
    images = torch.from_numpy(fill.image_batch(int(golden["seed"]), (1, 3, 640, 640)))

    with torch.no_grad():
        features = model.backbone(images)
        fused = model.encoder(features)
        found = model.decoder(fused, (1.0, 1.0))
    for name, maps in (("backbone", features), ("encoder", fused)):
        for level, x in enumerate(maps):
            torch.testing.assert_close(x[:, :4], golden[f"{name}_{level}_first4ch"], atol=TOLERANCE, rtol=0)
    ours = torch.cat((found.logits[0], found.boxes_cxcywh[0]), -1)
    assert nearest(ours, torch.cat((golden["pred_logits"][0], golden["pred_boxes"][0]), -1)) < TOLERANCE

    detections = DFINEPostProcessor(80)(
        FinalOutput(golden["pred_logits"], golden["pred_boxes"]), torch.tensor([[480, 640]])
    )
    torch.testing.assert_close(detections.scores[0], golden["post_scores"], atol=1e-6, rtol=0)
    rows = torch.cat((COCO_IDS[detections.labels[0]][:, None] * 1.0, detections.boxes_xyxy_px[0]), -1)
    golden_rows = torch.cat((golden["post_labels"][:, None] * 1.0, golden["post_boxes"]), -1)
    assert nearest(rows, golden_rows) < 1e-3  # pixels
