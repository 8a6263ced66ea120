"""Training on the CPU, in turns with a peer: losses and matching, a whole step, average and optimizer.

    python -m benchmarks.training [--work losses step deimv2 update] [--rounds 7] [--threads 1] [--clock cpu]

- `losses`: criterion and matcher of 6 layers, 300 queries and 80 classes, 20 objects a picture, against the
  D-FINE loss of `transformers` on the same outputs, denoising included. Ours judges two outputs of these
  that theirs leaves out (tests/nn/test_transformers_peer.py). Batches of 16 and of 64 run in turns too.
- `step`: a training step of D-FINE-L, 4 pictures of 320 px, against the D-FINE-L of `transformers` with the
  same weights: forward, losses, backward, clipping, AdamW and the average, theirs with torch's AdamW as it
  comes and an average that walks through the state dict.
- `deimv2`: a step of dfine_dinov3_s_coco against the DEIMv2-L of `transformers`, which has the same ViT.
- `update`: what the host spends on the average and AdamW over D-FINE-L's 1,000 or so tensors, each cut to a
  few numbers (at full size a CPU waits for its memory either way, a GPU's work runs beside the host's).

Medians. The processor's seconds in one thread, which are counted at first, are a clock's on an idle machine.
"""

import argparse
import copy
import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src import assembly
from src.deploy.comparison.machine import this_machine
from src.nn.criterion import DFINECriterion, HungarianMatcher
from src.ops.distribution import weighting_function
from src.optim import ModelEMA, build_schedule
from src.solver.precision import Precision
from src.solver.step import TrainingStep
from src.structures import Denoising, LayerOutput, Targets, TrainOutput

from .pairs import Call, Pair, measure
from .peers import d_fine_large, deimv2_large

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "dfine"
LAYERS, QUERIES, CLASSES, BINS, GROUPS = 6, 300, 80, 33, 5
REG_SCALE, DECAY, NUMBERS = 4.0, 0.9999, 16


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
    transformers = importlib.import_module("transformers")
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


def losses_work() -> tuple[dict[str, Call], list[Pair]]:
    """Batches of 16 against transformers, and of 64 against 16."""
    calls = losses_calls(16)
    calls |= {name: call for name, call in losses_calls(64).items() if "ours" in name}
    pairs = []
    for kind in ("forward", "forward and backward"):
        ours = f"losses b16, {kind}, ours"
        pairs.append(Pair(f"losses, batch 16, {kind}", ours, f"losses b16, {kind}, transformers", 5.0))
        large = f"losses b64, {kind}, ours"
        pairs.append(Pair(f"losses, batch 64 against 16, {kind}, at most", ours, large, 4.4))
    return calls, pairs


class LoopEMA:
    """The average as it is usually written: one tensor after the other, by the state dict."""

    def __init__(self, model: nn.Module) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`."""
        source = model.state_dict()
        for name, average in self.module.state_dict().items():
            if average.dtype.is_floating_point:
                average.mul_(DECAY).add_(source[name].detach(), alpha=1 - DECAY)


def step_work() -> tuple[dict[str, Call], list[Pair]]:
    """One training step of D-FINE-L, ours and theirs."""
    calls = step_calls("dfine_hgnetv2_l_coco", "D-FINE-L, transformers", d_fine_large)
    return calls, [Pair("training step, D-FINE-L, batch 4, 320 px", *calls, 1.5)]


def deimv2_work() -> tuple[dict[str, Call], list[Pair]]:
    """One training step of dfine_dinov3_s_coco, everything in it training, and of DEIMv2-L."""
    calls = step_calls("dfine_dinov3_s_coco", "DEIMv2-L, transformers", lambda _: deimv2_large())
    return calls, [Pair("training step, the same ViT-S/16, batch 4, 320 px", *calls, None)]


def step_calls(config: str, name: str, peer: Callable[[nn.Module], nn.Module]) -> dict[str, Call]:
    """A step of ours, and one of a peer as a script has it."""
    experiment = assembly.load(CONFIGS / f"{config}.yml", [])
    ours = assembly.build_model(experiment).train()
    theirs = peer(ours).train()
    images, targets = torch.rand(4, 3, 320, 320), make_targets(4, 7, 320)
    labels = as_labels(targets)
    step = make_step(ours, assembly.build_criterion(experiment))
    optimizer, average = torch.optim.AdamW(theirs.parameters(), lr=1e-6), LoopEMA(theirs)

    def their_step() -> None:
        optimizer.zero_grad()
        theirs(pixel_values=images, labels=labels).loss.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        optimizer.step()
        average.update(theirs)

    return {f"step, {config}": lambda: step(ours, [(images, targets)]), f"step, {name}": their_step}


def make_step(model: nn.Module, criterion: DFINECriterion) -> TrainingStep:
    """A step as a run makes it, in float32, at a rate that hardly moves the weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    schedule = build_schedule(optimizer, total_steps=10**6, steps_per_epoch=10**3)
    ema = ModelEMA(model, decay=DECAY, warmups=0)
    return TrainingStep(model, criterion, optimizer, schedule, ema, Precision("cpu", None), clip_max_norm=0.1)


def update_work() -> tuple[dict[str, Call], list[Pair]]:
    """The average and the optimizer alone: D-FINE-L's modules with every tensor cut to a few numbers."""
    model = assembly.build_model(assembly.load(CONFIGS / "dfine_hgnetv2_l_coco.yml", []))
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    few = tensor.detach().flatten()[:NUMBERS].clone()
                    tensors[name] = nn.Parameter(few) if isinstance(tensor, nn.Parameter) else few
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    count = len(list(model.parameters()))
    print(f"{len(model.state_dict())} tensors for the average, {count} for the optimizer")
    ours, theirs = ModelEMA(model, decay=DECAY, warmups=0), LoopEMA(model)
    fused = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    loop = torch.optim.AdamW(model.parameters(), lr=1e-6, foreach=False, fused=False)
    calls: dict[str, Call] = {
        "20 averages, ours": lambda: [ours.update(model) for _ in range(20)],
        "20 averages, loop over the state dict": lambda: [theirs.update(model) for _ in range(20)],
        "20 AdamW steps, ours": lambda: [fused.step() for _ in range(20)],
        "20 AdamW steps, loop": lambda: [loop.step() for _ in range(20)],
    }
    names = list(calls)
    return calls, [Pair("average", *names[:2], 15.0), Pair("AdamW", *names[2:], 5.0)]


WORKS = {"losses": losses_work, "step": step_work, "deimv2": deimv2_work, "update": update_work}


def main() -> None:
    """Parse, measure, print, and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    machine = this_machine(torch.device("cpu"))
    print(f"{machine.line()}; {args.rounds} rounds in turns, {args.clock} clock, medians, float32")
    runs = [measure(*WORKS[work](), args.rounds, clock) for work in args.work]
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    if args.json is not None:
        found = {"machine": machine._asdict(), "clock": args.clock, "runs": runs}
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
