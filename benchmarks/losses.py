"""Losses and matching of made-up outputs, ours and those of `transformers`."""

import importlib
from typing import Any

import torch
from torch import Tensor

from src.deploy.extras import require
from src.nn.criterion import DFINECriterion, HungarianMatcher
from src.ops.distribution import weighting_function
from src.structures import Denoising, LayerOutput, Targets, TrainOutput

from .pairs import Call

LAYERS, QUERIES, CLASSES, BINS, GROUPS = 6, 300, 80, 33, 5
REG_SCALE = 4.0


def make_targets(batch: int, objects: int, side_px: int) -> Targets:
    """Objects at random, as many in every picture."""
    total = batch * objects
    boxes = torch.cat((0.2 + 0.6 * torch.rand(total, 2), 0.02 + 0.3 * torch.rand(total, 2)), -1)
    sizes_hw = ((side_px, side_px),) * batch
    return Targets(
        boxes, torch.randint(0, CLASSES, (total,)), (objects,) * batch, tuple(range(batch)), sizes_hw
    )


def as_labels(targets: Targets) -> list[dict[str, Tensor]]:
    """The same in their form."""
    parts = zip(targets.boxes_cxcywh.split(targets.counts), targets.labels.split(targets.counts), strict=True)
    return [{"boxes": boxes, "class_labels": labels} for boxes, labels in parts]


class Outputs:
    """What a decoder may have said of a batch, with gradients, as each side's model hands it to its losses.

    Args:
        batch: Pictures.
        objects: Objects of each.
    """

    def __init__(self, batch: int, objects: int = 20) -> None:
        self.targets = make_targets(batch, objects, 640)
        self.num_noised = 2 * GROUPS * objects
        rows = (batch, LAYERS + 1, self.num_noised + QUERIES)
        self.logits = torch.randn(*rows, CLASSES) - 3
        self.boxes = torch.cat((0.2 + 0.6 * torch.rand(*rows, 2), 0.02 + 0.3 * torch.rand(*rows, 2)), -1)
        self.corners = torch.randn(batch, LAYERS, rows[2], 4 * BINS)
        self.references = self.boxes[:, :1].expand(-1, LAYERS, -1, -1).contiguous()
        self.encoder = [self.logits[:, 0, -QUERIES:].clone(), self.boxes[:, 0, -QUERIES:].clone()]
        self.bins = weighting_function(BINS - 1, 0.5, REG_SCALE)

    def leaves(self) -> tuple[Tensor, ...]:
        """Each stage's logits and boxes, each layer's corners, the encoder's two; they ask for gradients."""
        stages = [stage.clone() for x in (self.logits, self.boxes, self.corners) for stage in x.unbind(1)]
        return tuple(x.requires_grad_() for x in (*stages, *(x.clone() for x in self.encoder)))

    def to_ours(self, leaves: tuple[Tensor, ...]) -> TrainOutput:
        """Our model's form."""
        num = LAYERS + 1
        logits, boxes, corners = leaves[:num], leaves[num : 2 * num], leaves[2 * num : -2]

        def family(rows: slice) -> tuple[LayerOutput, tuple[LayerOutput, ...]]:
            layers = zip(logits[1:], boxes[1:], corners, self.references.unbind(1), strict=True)
            pre = LayerOutput(logits[0][:, rows], boxes[0][:, rows])
            return pre, tuple(LayerOutput(*(x[:, rows] for x in layer)) for layer in layers)

        pre, layers = family(slice(self.num_noised, None))
        noised_pre, noised = family(slice(0, self.num_noised))
        denoising = Denoising(noised, noised_pre, GROUPS, self.targets.counts[0])
        return TrainOutput(layers, pre, LayerOutput(*leaves[-2:]), denoising, self.bins, REG_SCALE)

    def their_inputs(self, leaves: tuple[Tensor, ...]) -> dict[str, Any]:
        """Their model's form."""
        num, batch, objects = LAYERS + 1, len(self.targets.counts), self.targets.counts[0]
        logits, boxes = torch.stack(leaves[:num], 1), torch.stack(leaves[num : 2 * num], 1)
        # positive copies of the objects: group after group, negative ones between
        positive = torch.cat([torch.arange(objects) + 2 * objects * g for g in range(GROUPS)])
        meta = {
            "dn_positive_idx": [positive] * batch,
            "dn_num_group": GROUPS,
            "dn_num_split": [self.num_noised, QUERIES],
        }
        return {
            "logits": logits[:, -1],
            "pred_boxes": boxes[:, -1],
            "outputs_class": logits,
            "outputs_coord": boxes,
            "enc_topk_logits": leaves[-2],
            "enc_topk_bboxes": leaves[-1],
            "predicted_corners": torch.stack(leaves[2 * num : -2], 1),
            "initial_reference_points": self.references,
            "denoising_meta_values": meta,
        }


def losses_calls(batch: int) -> dict[str, Call]:
    """Losses of one batch, forward alone and with their gradients, ours and theirs."""
    transformers = require("transformers")
    their_loss = importlib.import_module("transformers.loss.loss_d_fine").DFineForObjectDetectionLoss
    config = transformers.DFineConfig(num_labels=CLASSES, decoder_layers=LAYERS)
    outputs, criterion = Outputs(batch), DFINECriterion(HungarianMatcher(), CLASSES)
    labels, leaves = as_labels(outputs.targets), outputs.leaves()

    def ours(backward: bool) -> Tensor:
        losses = criterion(outputs.to_ours(leaves), outputs.targets)
        return _pulled(torch.stack(list(losses.values())).sum(), leaves, backward)

    def theirs(backward: bool) -> Tensor:
        loss, _, _ = their_loss(
            labels=labels, device=torch.device("cpu"), config=config, **outputs.their_inputs(leaves)
        )
        return _pulled(loss, leaves, backward)

    kinds = {"forward": False, "forward and backward": True}
    return {
        f"losses b{batch}, {kind}, {side}": (lambda run=run, backward=backward: run(backward))
        for kind, backward in kinds.items()
        for side, run in (("ours", ours), ("transformers", theirs))
    }


def _pulled(loss: Tensor, leaves: tuple[Tensor, ...], backward: bool) -> Tensor:
    if backward:
        torch.autograd.grad(loss, leaves, allow_unused=True)  # theirs reads no edges of the last layer
    return loss
