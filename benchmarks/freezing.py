"""What freezing the ViT and gradient checkpointing save: time and memory of a training step, on the CPU.

    python -m benchmarks.freezing --sizes 320 640

The steps that are compared take turns in one process, so that whatever else the machine does slows all of
them. Memory is counted, not measured: the bytes that autograd keeps for the backward pass.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from src.assembly import build_criterion, build_model, load
from src.solver.batch_size import kept_bytes
from src.structures import Targets

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "dfine" / "dfine_dinov3_s_coco.yml"


class Mode(NamedTuple):
    """A way to train.

    Attributes:
        name: What the table calls it.
        blocks: Blocks of the ViT that learn; None for all of it.
        vit: Whether the ViT is checkpointed.
        encoder: Whether the encoder is.
    """

    name: str
    blocks: int | None = None
    vit: bool = False
    encoder: bool = False


FULL = Mode("everything trains")
FROZEN = Mode("ViT frozen", blocks=0)
MODES = (
    FULL,
    FROZEN,
    Mode("last 4 blocks of the ViT train", blocks=4),
    Mode("everything, ViT checkpointed", vit=True),
    Mode("everything, ViT and encoder checkpointed", vit=True, encoder=True),
)


class Trainee:
    """A detector with random weights on random pictures, ready to make training steps.

    Args:
        size: Side of the pictures in pixels.
        batch_size: Pictures in a step.
        num_objects: Objects in a picture; COCO has 7.
    """

    def __init__(self, size: int, batch_size: int = 1, num_objects: int = 7) -> None:
        torch.manual_seed(0)
        experiment = load(CONFIG)
        self.model = build_model(experiment).train()
        self.criterion = build_criterion(experiment)
        total = batch_size * num_objects
        self.images = torch.rand(batch_size, 3, size, size)
        self.targets = Targets(
            torch.rand(total, 4) * 0.3 + 0.2,
            torch.randint(0, experiment.num_classes, (total,)),
            (num_objects,) * batch_size,
            tuple(range(batch_size)),
            ((size, size),) * batch_size,
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)

    def enter(self, mode: Mode) -> None:
        """Train so from now on."""
        backbone: Any = self.model.backbone
        encoder: Any = self.model.encoder
        backbone.gradient_checkpointing, encoder.gradient_checkpointing = mode.vit, mode.encoder
        backbone.set_trainable_blocks(mode.blocks)

    def loss(self) -> Tensor:
        """Forward pass and criterion."""
        losses: dict[str, Tensor] = self.criterion(self.model(self.images, self.targets), self.targets)
        return torch.stack(list(losses.values())).sum()

    def vit_maps(self) -> tuple[Tensor, ...]:
        """The ViT's forward pass alone."""
        maps: tuple[Tensor, ...] = self.model.backbone._maps(self.images)  # type: ignore[operator, union-attr]
        return maps

    def step(self) -> float:
        """Forward pass, criterion, backward pass and optimizer; the seconds that they took."""
        self.optimizer.zero_grad(set_to_none=True)
        start = time.perf_counter()
        self.loss().backward()
        nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], 0.1)
        self.optimizer.step()
        return time.perf_counter() - start


def measure(size: int, batch_size: int, rounds: int) -> list[dict[str, Any]]:
    """One row a mode: median seconds of a step, and MiB kept by the whole step and by the ViT."""
    trainee = Trainee(size, batch_size)
    seconds: dict[str, list[float]] = {mode.name: [] for mode in MODES}
    rows = []
    for mode in MODES:
        trainee.enter(mode)
        step, vit = (kept_bytes(trainee.model, run) / 2**20 for run in (trainee.loss, trainee.vit_maps))
        rows.append({"size": size, "mode": mode.name, "step_mib": round(step, 1), "vit_mib": round(vit, 1)})
        trainee.step()  # warm-up
    for _ in range(rounds):
        for mode in MODES:
            trainee.enter(mode)
            seconds[mode.name].append(trainee.step())
    full = median(seconds[FULL.name])
    for row in rows:
        taken = median(seconds[row["mode"]])
        row |= {
            "seconds": round(taken, 3),
            "times_as_fast": round(full / taken, 2),
            "step_share": round(row["step_mib"] / rows[0]["step_mib"], 3),
            "vit_share": round(row["vit_mib"] / rows[0]["vit_mib"], 3),
        }
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    lines = [
        "| size | what trains | median step, s | times as fast | kept by the step, MiB | of full "
        "| kept by the ViT, MiB | of full |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['size']} | {r['mode']} | {r['seconds']:.2f} | {r['times_as_fast']:.2f} | {r['step_mib']:.0f} "
        f"| {r['step_share']:.0%} | {r['vit_mib']:.0f} | {r['vit_share']:.0%} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 640], help="sides of the pictures")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures in a step")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    about = {
        "config": CONFIG.name,
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "dtype": "float32",
        "threads": args.threads,
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 1),
    }
    rows = [row for size in args.sizes for row in measure(size, args.batch_size, args.rounds)]
    about["load_after"] = round(os.getloadavg()[0], 1)
    if args.json:
        print(json.dumps({"about": about, "rows": rows}))
    else:
        print(", ".join(f"{key} {value}" for key, value in about.items()), table(rows), sep="\n\n")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
