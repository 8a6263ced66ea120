"""Training on the CPU, in turns with a peer: losses and matching, a whole step, average and optimizer.

    python -m benchmarks.training [--work losses step deimv2 update] [--rounds 5] [--threads 1] [--clock cpu]
    python -m benchmarks.training --work profile

- `losses`: criterion and matcher of 6 layers, 300 queries and 80 classes, 20 objects a picture, against the
  D-FINE loss of `transformers` on the same outputs, denoising included. Ours judges two outputs of these
  that theirs leaves out (tests/nn/test_transformers_peer.py). Batches of 16 and of 64 run in turns too.
- `step`: a training step of D-FINE-L, 4 pictures of 320 px, against the D-FINE-L of `transformers` with the
  same weights: forward, losses, backward, clipping, AdamW and the average, theirs with torch's AdamW as it
  comes and an average that walks through the state dict.
- `deimv2`: a step of dfine_dinov3_s_coco against the DEIMv2-L of `transformers`, which has the same ViT.
- `update`: what the host spends on the average and AdamW over D-FINE-L's 1,000 or so tensors, each cut to a
  few numbers (at full size a CPU waits for its memory either way, a GPU's work runs beside the host's).

- `profile`, which is no comparison: where a step's time goes, by part and by operation, and counts of
  operations, for D-FINE-L and dfine_dinov3_s_coco.

Medians. The processor's seconds in one thread, which are counted at first, are a clock's on an idle machine.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from src import assembly, door
from src.optim import ModelEMA

from .losses import losses_calls
from .pairs import CLOCKS, Call, Pair, Way, measure
from .peers import d_fine_large, deimv2_large
from .rows import Row, machine, machine_line, report
from .step_profile import print_profile
from .steps import CONFIGS, DECAY, LoopEMA, step_calls

NUMBERS = 16


def losses_work() -> tuple[dict[str, Call], list[Pair]]:
    """Batches of 16 against transformers, and of 64 against 16."""
    calls = losses_calls(16)
    calls |= {name: call for name, call in losses_calls(64).items() if "ours" in name}
    pairs = []
    for kind in ("forward", "forward and backward"):
        ours, large = f"losses b16, {kind}, ours", f"losses b64, {kind}, ours"
        work = f"criterion and matching, 6 layers, 300 queries, 20 objects a picture, {kind}"
        pairs.append(Pair(f"{work}, batch 16", ours, f"losses b16, {kind}, transformers", 5.0))
        pairs.append(Pair(f"{work}, batch 64", large, ours, 4.4, at_most=True))
    return calls, pairs


def step_work() -> tuple[dict[str, Call], list[Pair]]:
    """One training step of D-FINE-L, ours and theirs."""
    calls = step_calls("dfine_hgnetv2_l_coco", "D-FINE-L, transformers", d_fine_large)
    return calls, [Pair("training step, D-FINE-L, batch 4, 320 px", *calls, 1.5)]


def deimv2_work() -> tuple[dict[str, Call], list[Pair]]:
    """One training step of dfine_dinov3_s_coco, everything in it training, and of DEIMv2-L."""
    calls = step_calls(
        "dfine_dinov3_s_coco", "DEIMv2-L, transformers, the same ViT", lambda _: deimv2_large()
    )
    return calls, [Pair("training step, dfine_dinov3_s_coco, batch 4, 320 px", *calls, None)]


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
    averaged, updated = len(model.state_dict()), len(list(model.parameters()))
    return calls, [
        Pair(f"average of the weights, {averaged:,} tensors, the host's part, 20 times", *names[:2], 15.0),
        Pair(f"AdamW, {updated:,} tensors, the host's part, 20 times", *names[2:], 5.0),
    ]


WORKS: dict[str, Callable[[], tuple[dict[str, Call], list[Pair]]]] = {
    "losses": losses_work,
    "step": step_work,
    "deimv2": deimv2_work,
    "update": update_work,
}


def main() -> None:
    """Parse, measure, print, and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", nargs="+", choices=(*WORKS, "profile"), default=list(WORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    way = Way(args.rounds, args.threads, args.clock)
    described = machine()
    print(f"{machine_line(described)}; float32", flush=True)
    rows: list[Row] = []
    for work in args.work:
        if work in WORKS:
            rows += measure(*WORKS[work](), way)
    profiled = print_profile(way) if "profile" in args.work else {}
    report(described, rows, args.json, **profiled)


if __name__ == "__main__":
    sys.exit(door.run(main))
