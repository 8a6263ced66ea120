from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from src import assembly, runs
from src.evaluation import CocoEvaluator
from src.solver.checkpoint import save_checkpoint
from src.solver.evaluate import Evaluation
from src.solver.precision import Precision
from src.structures import Batch, ClassNames, Detections, FinalOutput, GroundTruth, Targets

CPU = torch.device("cpu")


class Detector(nn.Module):
    """Finds what it is made to find, by a product whose type shows the precision it ran in."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.linear.weight)
        self.ran_in: list[torch.dtype] = []

    def forward(self, images: Tensor) -> FinalOutput:
        boxes = torch.tensor([0.5, 0.5]).repeat(len(images), 1, 1)
        product = self.linear(boxes)
        self.ran_in.append(product.dtype)
        return FinalOutput(product[..., :1], torch.cat((product, product), -1))


def evaluation(seen: list[torch.dtype]) -> Evaluation:
    """One picture of 20 x 10 pixels with an object in its middle half, and what finds exactly that."""
    one, box = np.array([0]), np.array([[5.0, 2.5, 10.0, 5.0]])
    truth = GroundTruth(np.array([4]), one, one, box, np.array([50.0]), one > 0)

    def postprocess(output: FinalOutput, sizes_hw: Tensor) -> Detections:
        seen.extend((output.logits.dtype, output.boxes_cxcywh.dtype))
        centre, side = output.boxes_cxcywh.split(2, -1)
        size = sizes_hw.flip(-1)[:, None]
        boxes = torch.cat(((centre - side / 2) * size, (centre + side / 2) * size), -1)
        return Detections(torch.zeros(1, 1, dtype=torch.int64), boxes, output.logits.sigmoid()[..., 0])

    def pictures(image_id: int) -> tuple[str, Image.Image]:
        return f"{image_id}.png", Image.new("RGB", (20, 10))

    targets = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), (0,), (4,), ((10, 20),))
    batch = Batch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), targets)
    classes = ClassNames(("x",), (9,))
    evaluator = CocoEvaluator("instances.json", classes, truth)
    return Evaluation([batch], postprocess, evaluator, classes, CPU, pictures)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_model_runs_in_the_precision_and_its_output_is_scored_in_float32(
    dtype: torch.dtype | None,
) -> None:
    model = Detector()
    seen: list[torch.dtype] = []
    metrics, _ = evaluation(seen)(model, Precision("cpu", dtype))
    assert model.ran_in == [dtype or torch.float32]
    assert seen == [torch.float32, torch.float32]
    assert metrics.AP == pytest.approx(1)


def test_use_amp_reaches_an_evaluation(
    tiny_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_config()
    model = assembly.build_model(assembly.load(path))
    save_checkpoint(tmp_path / "best.pth", {"model": model.state_dict()})
    precisions: list[Precision] = []
    evaluate = Evaluation.__call__

    def record(self: Evaluation, model: nn.Module, precision: Precision) -> Any:
        precisions.append(precision)
        return evaluate(self, model, precision)

    monkeypatch.setattr(Evaluation, "__call__", record)
    for flags in (["use_amp=True", "amp.dtype=bfloat16"], []):
        runs.test(assembly.load(path, flags), CPU, checkpoint=str(tmp_path / "best.pth"))
    assert [precision.dtype for precision in precisions] == [torch.bfloat16, None]


class Oracle(nn.Module):
    """Says what the loader's targets hold."""

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__()
        self.answers = iter([batch.targets for batch in evaluation.loader])

    def forward(self, images: Tensor) -> FinalOutput:
        targets = next(self.answers)
        logits = torch.full((len(images), 12, 6), -9.0)
        boxes = torch.full((len(images), 12, 4), 0.5)
        start = 0
        for i, count in enumerate(targets.counts):
            logits[i, range(count), targets.labels[start : start + count]] = 9.0
            boxes[i, :count] = targets.boxes_cxcywh[start : start + count]
            start += count
        return FinalOutput(logits, boxes)


@pytest.mark.parametrize("keep_ratio", [False, True])
def test_padded_pictures_are_scored_in_their_own_pixels(
    tiny_config: Callable[..., Path], keep_ratio: bool
) -> None:
    settings = assembly.load(tiny_config(eval_spatial_size=[64, 128], keep_ratio=keep_ratio))
    built = assembly.build_evaluation(settings, CPU, assembly.build_model(settings))
    metrics, _ = built(Oracle(built), Precision("cpu", None))
    assert metrics.AP > 0.99
