"""Where the time of a training step goes: by part, by operation, and in counts that hold on every machine."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from src import assembly
from src.nn.criterion import DFINECriterion

from .losses import losses_calls, make_targets
from .pairs import CLOCKS, Call, Way
from .steps import CONFIGS, make_step

MODELS = ("dfine_hgnetv2_l_coco", "dfine_dinov3_s_coco")
PARTS = ("backbone", "encoder", "decoder", "criterion", "backward", "clip, AdamW, average", "all")
KINDS = {  # forward and backward; what fits first
    "convolutions": r"conv(?!ert)",
    "attention": r"scaled_dot_product|flash_attention",
    "matrix products": r"::(addmm|baddbmm|bmm|mm|matmul|linear)$",
    "grid_sample": r"grid_sampl",
    "batch norm": r"batch_norm",
}
REST = "everything else"
ROTARY_HW = (40, 40)  # patches of 640 px


def print_profile(way: Way) -> dict[str, Any]:
    """Measure, print in Markdown, and give the numbers."""
    found: dict[str, Any] = {"milliseconds": {}, "shares": {}, "operations": {}}
    for name in MODELS:
        experiment = assembly.load(CONFIGS / f"{name}.yml", [])
        model = assembly.build_model(experiment).train()
        criterion = assembly.build_criterion(experiment)
        step, batch = make_step(model, criterion), (torch.rand(4, 3, 320, 320), make_targets(4, 7, 320))
        call = partial(step, model, [batch])
        call()
        found["shares"][name] = shares(call)
        found["operations"][f"a step of {name}"] = operations(call)
        if name.startswith("dfine_dinov3"):
            rotary = partial(model.backbone.vit.rope.get_embed, ROTARY_HW)
            found["operations"]["a table of rotary positions"] = operations(rotary)
        found["milliseconds"][name] = milliseconds(model, criterion, step, call, way)
    for side, call in losses_calls(2).items():
        if ", forward," in side:
            found["operations"][side] = operations(call)
    _print(
        f"milliseconds, {way.clock} clock, threads: {way.threads}, medians of {way.rounds}",
        found["milliseconds"],
        "{:,.0f}",
    )
    _print("shares of a step's time on the processor", found["shares"], "{:.0%}")
    print("\n| operations | count |\n|---|---|")
    for work, count in found["operations"].items():
        print(f"| {work} | {count:,} |")
    return found


def operations(call: Call) -> int:
    """How many operations reach torch's dispatcher, a backward pass's included."""
    from tests.ledger import Ledger  # a test's tool: it needs pytest

    with Ledger() as ledger:
        call()
    return ledger.counts.total()


def shares(call: Call) -> dict[str, float]:
    """Shares of the processor's time by kind of operation."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        call()
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        kind = next((kind for kind, names in KINDS.items() if re.search(names, event.key)), REST)
        spent[kind] += event.self_cpu_time_total
    return {kind: spent[kind] / spent.total() for kind in (*KINDS, REST)}


def milliseconds(model: Any, criterion: DFINECriterion, step: Any, call: Call, way: Way) -> dict[str, float]:
    """Medians of each part's time; the parts' methods stay wrapped."""
    clock, spent = CLOCKS[way.clock], defaultdict[str, list[float]](list)
    owners = (model.backbone, model.encoder, model.decoder, criterion, step, step)
    names = ("forward", "forward", "forward", "forward", "_backward", "_update")
    for part, owner, name in zip(PARTS, owners, names, strict=False):
        setattr(owner, name, _timed(getattr(owner, name), clock, spent[part]))
    whole = _timed(call, clock, spent["all"])
    for _ in range(way.rounds):
        whole()
    return {part: 1e3 * median(spent[part]) for part in PARTS}


def _timed(call: Callable[..., Any], clock: Callable[[], float], spent: list[float]) -> Callable[..., Any]:
    def timed(*args: Any) -> Any:
        started = clock()
        found = call(*args)
        spent.append(clock() - started)
        return found

    return timed


def _print(title: str, table: dict[str, dict[str, float]], form: str) -> None:
    columns = list(next(iter(table.values())))
    print(f"\n| {title} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, row in table.items():
        print(f"| {name} | {' | '.join(form.format(value) for value in row.values())} |")
