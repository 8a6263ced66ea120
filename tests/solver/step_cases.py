"""A tiny detector of the real classes, its criterion, and batches for the tests of the optimizer step."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from src.nn.backbone import DINOv3Backbone
from src.nn.criterion import DFINECriterion, HungarianMatcher
from src.nn.decoder import DFINETransformer
from src.nn.dfine import DFINE
from src.nn.encoder import HybridEncoder
from src.optim import ModelEMA, build_schedule
from src.solver.precision import Precision
from src.solver.step import TrainingStep
from src.structures import Targets

NUM_CLASSES = 4
FLOAT32 = Precision("cpu", None)


def make_detector(*, num_denoising: int = 0, batch_norm: Literal["eval", "train"] = "eval") -> DFINE:
    torch.manual_seed(0)
    backbone = DINOv3Backbone(
        pretrained=False, embed_dim=32, depth=2, num_heads=2, layer_scale=1.0, out_channels=(32, 32, 32)
    )
    encoder = HybridEncoder(backbone.levels, hidden_dim=32, dim_feedforward=32, nhead=2, depth_mult=0.34)
    decoder = DFINETransformer(
        encoder.levels,
        NUM_CLASSES,
        hidden_dim=32,
        nhead=2,
        dim_feedforward=32,
        num_layers=2,
        num_queries=12,
        num_denoising=num_denoising,
        num_points=(2, 2, 2),
    )
    model = DFINE(backbone, encoder, decoder).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(batch_norm == "train")
    return model


def make_step(
    model: nn.Module, precision: Precision = FLOAT32, *, lr: float = 0.01, adam: bool = False
) -> TrainingStep:
    if adam:
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=True)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for group in optimizer.param_groups:
        group["initial_lr"] = lr
    schedule = build_schedule(optimizer, total_steps=1000, steps_per_epoch=100)
    criterion = DFINECriterion(HungarianMatcher(), NUM_CLASSES)
    ema = ModelEMA(model, decay=0.5, warmups=0)
    return TrainingStep(model, criterion, optimizer, schedule, ema, precision, clip_max_norm=1.0)


def make_batch(counts: Sequence[int]) -> tuple[Tensor, Targets]:
    """Pictures of noise, 64 x 64, with so many objects each."""
    total, size = sum(counts), len(counts)
    boxes = torch.cat((0.2 + 0.6 * torch.rand(total, 2), 0.1 + 0.3 * torch.rand(total, 2)), -1)
    labels = torch.randint(0, NUM_CLASSES, (total,))
    targets = Targets(boxes, labels, tuple(counts), tuple(range(size)), ((64, 64),) * size)
    return torch.rand(size, 3, 64, 64), targets


def split(batch: tuple[Tensor, Targets], size: int) -> list[tuple[Tensor, Targets]]:
    """The batch as micro-batches of `size` pictures."""
    images, targets = batch
    boxes, labels = targets.boxes_cxcywh.split(targets.counts), targets.labels.split(targets.counts)
    parts = []
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        some = Targets(
            torch.cat(boxes[rows]),
            torch.cat(labels[rows]),
            targets.counts[rows],
            targets.image_ids[rows],
            targets.sizes_hw[rows],
        )
        parts.append((images[rows], some))
    return parts


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}
