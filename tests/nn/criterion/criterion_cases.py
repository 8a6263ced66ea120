"""Training outputs for the criterion's tests: made at random, or read from the golden file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.ops.distribution import distances_to_boxes, expected_distances, weighting_function
from src.structures import Denoising, LayerOutput, Targets, TrainOutput

GOLDEN = Path(__file__).parents[3] / ".." / "shared" / "parity" / "dfine_hgnetv2_n_criterion.npz"
REG_SCALE = 4.0


def random_boxes(*shape: int) -> Tensor:
    centre = 0.2 + 0.6 * torch.rand(*shape, 2)
    return torch.cat((centre, 0.05 + 0.3 * torch.rand(*shape, 2)), -1)


def make_targets(counts: Sequence[int], num_classes: int = 5) -> Targets:
    total, batch = sum(counts), len(counts)
    labels = torch.randint(0, num_classes, (total,))
    return Targets(random_boxes(total), labels, tuple(counts), tuple(range(batch)), ((100, 100),) * batch)


def make_output(
    batch: int,
    queries: int = 12,
    num_classes: int = 5,
    layers: int = 3,
    reg_max: int = 8,
    groups: int | None = 2,
    max_count: int = 1,
) -> TrainOutput:
    """Random outputs, every float tensor of which is a leaf that asks for its gradient."""
    bins = weighting_function(reg_max, 0.5, REG_SCALE)

    def family(rows: int) -> list[LayerOutput]:
        reference = random_boxes(batch, rows)
        made = []
        for _ in range(layers):
            corners = torch.randn(batch, rows, 4 * bins.numel())
            boxes = distances_to_boxes(reference, expected_distances(corners, bins), REG_SCALE)
            boxes = boxes.clamp(min=0.01)
            logits = torch.randn(batch, rows, num_classes)
            leaves = [x.requires_grad_() for x in (logits, boxes, corners)]
            made.append(LayerOutput(*leaves, reference))
        return made

    def plain(rows: int) -> LayerOutput:
        logits = torch.randn(batch, rows, num_classes, requires_grad=True)
        return LayerOutput(logits, random_boxes(batch, rows).requires_grad_())

    denoising = None
    if groups is not None:
        rows = 2 * groups * max(1, max_count)
        denoising = Denoising(tuple(family(rows)), plain(rows), groups, max(1, max_count))
    return TrainOutput(tuple(family(queries)), plain(queries), plain(queries), denoising, bins, REG_SCALE)


def leaves(output: TrainOutput) -> dict[str, Tensor]:
    """Every predicted tensor of `output` by a name."""
    outs = {f"layer{i}": out for i, out in enumerate(output.layers)}
    outs |= {"pre": output.pre, "encoder": output.encoder}
    if output.denoising is not None:
        outs |= {f"dn{i}": out for i, out in enumerate(output.denoising.layers)}
        outs["dn_pre"] = output.denoising.pre
    return {
        f"{name}.{field}": value
        for name, out in outs.items()
        for field, value in (("logits", out.logits), ("boxes", out.boxes_cxcywh), ("corners", out.corners))
        if value is not None
    }


def golden_case() -> tuple[TrainOutput, Targets, dict[str, NDArray[np.float32]]]:
    """Outputs, targets and all arrays of the golden file."""
    with np.load(GOLDEN) as file:
        arrays = {name: file[name] for name in file.files}

    def layer(prefix: str) -> LayerOutput:
        def get(key: str) -> Tensor | None:
            name = f"{prefix}.{key}"
            return torch.from_numpy(arrays[name]) if name in arrays else None

        logits, boxes = get("pred_logits"), get("pred_boxes")
        assert logits is not None and boxes is not None
        return LayerOutput(logits, boxes, get("pred_corners"), get("ref_points"))

    groups = int(arrays["dn_meta.dn_num_group"])
    noised = Denoising(
        tuple(layer(f"dn_outputs.{i}") for i in range(3)),
        layer("dn_pre_outputs"),
        groups,
        int(arrays["dn_meta.dn_num_split"][0]) // groups // 2,
    )
    output = TrainOutput(
        (layer("aux_outputs.0"), layer("aux_outputs.1"), layer("out")),
        layer("pre_outputs"),
        layer("enc_aux_outputs.0"),
        noised,
        weighting_function(32, float(arrays["out.up"][0]), float(arrays["out.reg_scale"][0])),
        float(arrays["out.reg_scale"][0]),
    )
    labels = [torch.from_numpy(arrays[f"targets.{i}.labels"]) for i in range(3)]
    boxes = [torch.from_numpy(arrays[f"targets.{i}.boxes"]) for i in range(3)]
    counts = tuple(len(x) for x in labels)
    targets = Targets(torch.cat(boxes), torch.cat(labels), counts, (0, 1, 2), ((640, 640),) * 3)
    return output, targets, arrays
