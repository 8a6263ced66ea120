"""The plan of dfine_dinov3_s_coco and of its presets, on the model at its full size."""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src import assembly
from src.core import Experiment
from src.nn.dfine import DFINE
from src.optim import Rule, build_schedule, parameter_groups
from src.solver.stages import Stage, plan_of, plan_stages, release_backbone, stages_table

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "dfine"
STAGED = CONFIGS / "dfine_dinov3_s_coco.yml"
LORA = CONFIGS / "presets" / "dfine_dinov3_s_lora_coco.yml"
STEPS = 40  # an epoch; the warm-up of 500 then ends after the first release
NORMS = (nn.LayerNorm, nn.BatchNorm2d)


def preset(name: str) -> Experiment:
    return assembly.load(CONFIGS / "presets" / f"dfine_dinov3_s_{name}_coco.yml")


@pytest.fixture(scope="module")
def model() -> DFINE:
    return assembly.build_model(assembly.load(STAGED))


def plan(experiment: Experiment) -> tuple[Stage, ...]:
    return plan_stages(experiment.stages, epochs=experiment.epochs, num_blocks=12)


def groups_of(experiment: Experiment, model: nn.Module) -> list[dict[str, Any]]:
    stated = experiment.optimizer
    rules = [Rule(rule.params, rule.lr, rule.weight_decay) for rule in stated.params]
    return parameter_groups(
        model, rules, lr=stated.lr, weight_decay=stated.weight_decay, layer_decay=stated.layer_decay
    )


def epochs_of(experiment: Experiment, model: DFINE) -> Iterator[tuple[int, torch.optim.Optimizer]]:
    """Every epoch of the run, as the trainer begins it; the optimizer's rates are those of its first step."""
    groups = groups_of(experiment, model)
    optimizer = torch.optim.AdamW(groups, lr=experiment.optimizer.lr)
    warmup = experiment.lr_warmup_scheduler
    assert warmup is not None
    schedule = build_schedule(
        optimizer,
        total_steps=experiment.epochs * STEPS,
        steps_per_epoch=STEPS,
        milestones=experiment.lr_scheduler.milestones,
        warmup=warmup.type,
        warmup_steps=warmup.warmup_duration,
    )
    optimizer.step()
    for stage in plan(experiment):
        for epoch in range(stage.start, stage.end):
            release_backbone(model, stage, optimizer, schedule)
            yield epoch, optimizer
            for _ in range(STEPS):
                schedule.step()


def learning(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def part(model: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def test_which_tensors_learn_at_each_epoch(model: DFINE) -> None:
    vit = part(model, "backbone.vit.")
    everything_else = {name for name, _ in model.named_parameters()} - vit
    assert part(model, "backbone.sta.", "encoder.", "decoder.") == everything_else
    released = {10: ("blocks.11.", "norm."), 12: ("blocks.10.",), 14: ("blocks.9.",), 16: ("blocks.8.",)}
    expected = set(everything_else)
    seen = 0
    for epoch, _ in epochs_of(assembly.load(STAGED), model):
        new = released.get(epoch, ())
        expected |= part(model, *(f"backbone.vit.{name}" for name in new)) if new else set()
        assert learning(model) == expected, epoch
        seen += 1
    assert seen == 80
    assert len(expected) - len(everything_else) == 4 * 13 + 2


@pytest.mark.parametrize(("name", "learns"), [("full", True), ("frozen", False)])
def test_the_vit_of_these_presets_learns_always_or_never(model: DFINE, name: str, learns: bool) -> None:
    names = {name for name, _ in model.named_parameters()}
    expected = names if learns else names - part(model, "backbone.vit.")
    for epoch, optimizer in epochs_of(preset(name), model):
        assert learning(model) == expected
        if epoch >= 13:
            rates = [group["lr"] for group in optimizer.param_groups]
            assert rates == pytest.approx([1e-5, 1e-5, 2.5e-4, 2.5e-4])


def test_of_the_vit_with_lora_the_factors_alone_learn() -> None:
    experiment = assembly.load(LORA)
    model = assembly.build_model(experiment)
    vit = part(model, "backbone.vit.")
    factors = {name for name in vit if ".lora_" in name}
    assert len(factors) == 12 * 2 * 2
    for epoch, optimizer in epochs_of(experiment, model):
        assert learning(model) & vit == factors
        if epoch in (13, 72):
            of = {n: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for n in g["param_names"]}
            assert {of[name] for name in factors} == {(1e-4, 0.0)}
            assert {of[name][0] for name in of.keys() - vit} == {2.5e-4}


@pytest.mark.parametrize("frozen", ["freeze_backbone=True", "freeze_backbone_epochs=999"])
def test_factors_that_would_never_learn_are_refused(frozen: str) -> None:
    experiment = assembly.load(LORA, [f"DINOv3Backbone.{frozen}"])
    with pytest.raises(ValueError, match=r"DINOv3Backbone\.lora: its factors would never learn"):
        plan_of(experiment, assembly.build_model(experiment))


def test_layer_decay_reaches_the_factors() -> None:
    experiment = assembly.load(LORA, ["optimizer.layer_decay=0.5"])
    rates = {
        name: group["lr"]
        for group in groups_of(experiment, assembly.build_model(experiment))
        for name in group["param_names"]
    }
    name = "backbone.vit.blocks.{}.attn.qkv.lora_A.default.weight"
    assert [rates[name.format(block)] for block in (11, 10)] == pytest.approx([5e-5, 2.5e-5])


def test_rates_at_each_epoch(model: DFINE) -> None:
    for epoch, optimizer in epochs_of(assembly.load(STAGED), model):
        warm = min((epoch * STEPS + 1) / 500, 1.0)
        vit = 1e-5 if epoch < 10 else 1e-6
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([warm * rate for rate in (vit, vit, 2.5e-4, 2.5e-4)]), epoch


def test_layer_decay_and_stages_multiply(model: DFINE) -> None:
    experiment = assembly.load(STAGED, ["optimizer.layer_decay=0.8"])
    for epoch, optimizer in epochs_of(experiment, model):
        if epoch in (13, 72):
            of = {n: group["lr"] for group in optimizer.param_groups for n in group["param_names"]}
            for name, lr in of.items():
                match = re.match(r"backbone\.vit\.(?:blocks\.(\d+)|(norm))?", name)
                above = 0 if match is None or match[2] else 12 - int(match[1]) if match[1] else 13
                assert lr == pytest.approx(1e-6 * 0.8**above if match else 2.5e-4), name


def test_the_documented_table_is_the_one_that_is_printed(repo_root: Path) -> None:
    page = (repo_root / "docs" / "dinov3_backbone.md").read_text()
    assert indent(stages_table(plan(assembly.load(STAGED))), "    ") in page


@pytest.mark.parametrize(
    ("base", "backbones"),
    [
        ("dfine_hgnetv2_l_coco.yml", ["frozen", "all", "all"]),
        ("dfine_dinov3_s_coco.yml", ["frozen", 1, 2, 3, 4, 4]),
        ("presets/dfine_dinov3_s_full_coco.yml", ["frozen", "all", "all"]),
        ("presets/dfine_dinov3_s_frozen_coco.yml", ["frozen", "frozen"]),
    ],
)
def test_the_shorthand_of_the_documented_yaml_lies_over_any_plan(
    tmp_path: Path, base: str, backbones: list[object]
) -> None:
    section = "{freeze_backbone: False, freeze_backbone_epochs: 10}"
    (tmp_path / "mine.yml").write_text(
        f"__include__: ['{CONFIGS / base}']\nDFINE: {{backbone: DINOv3Backbone}}\nDINOv3Backbone: {section}\n"
    )
    experiment = assembly.load(tmp_path / "mine.yml")
    knobs = experiment.components["DINOv3Backbone"]
    stages = plan_stages(
        experiment.stages,
        epochs=experiment.epochs,
        num_blocks=12,
        freeze_backbone=knobs["freeze_backbone"],
        freeze_epochs=knobs["freeze_backbone_epochs"],
    )
    assert [stage.backbone for stage in stages] == backbones
    assert stages[0].end >= 10


@pytest.mark.parametrize("name", ["full", "frozen"])
def test_presets_differ_from_the_default_in_the_plan_alone(name: str) -> None:
    ours, default = preset(name), assembly.load(STAGED)
    assert plan(ours)[-1]._replace(backbone=4, backbone_lr_factor=0.1) == plan(default)[-1]
    assert ours.components == default.components
    assert ours.optimizer == default.optimizer


def test_what_has_no_weight_decay(model: DFINE) -> None:
    """By the kinds of modules, not by names: the expressions in the YAML must meet these and no other."""
    expected = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    for path, module in model.named_modules():
        if isinstance(module, NORMS):
            expected |= {f"{path}.{name}" for name, _ in module.named_parameters()}
    expected |= {f"backbone.vit.blocks.{i}.{gain}" for i in range(12) for gain in ("gamma_1", "gamma_2")}
    expected |= {"backbone.vit.cls_token", "backbone.vit.reg_token"}
    groups = groups_of(assembly.load(STAGED), model)
    spared = {name for group in groups if group["weight_decay"] == 0 for name in group["param_names"]}
    assert spared == expected
    of_vit = part(model, "backbone.vit.") & spared
    assert {re.sub(r"blocks\.\d+", "blocks.N", name) for name in of_vit} == {
        "backbone.vit.cls_token",
        "backbone.vit.reg_token",
        "backbone.vit.patch_embed.proj.bias",
        "backbone.vit.blocks.N.norm1.weight",
        "backbone.vit.blocks.N.norm1.bias",
        "backbone.vit.blocks.N.attn.proj.bias",
        "backbone.vit.blocks.N.gamma_1",
        "backbone.vit.blocks.N.norm2.weight",
        "backbone.vit.blocks.N.norm2.bias",
        "backbone.vit.blocks.N.mlp.fc1.bias",
        "backbone.vit.blocks.N.mlp.fc2.bias",
        "backbone.vit.blocks.N.gamma_2",
        "backbone.vit.norm.weight",
        "backbone.vit.norm.bias",
    }  # fmt: skip


@pytest.mark.parametrize("blocks", [0, 2, None])
def test_autograd_keeps_nothing_of_frozen_parts(model: DFINE, blocks: int | None) -> None:
    vit = model.backbone.vit
    parts = [vit.patch_embed.proj, *vit.blocks]
    kept: dict[int, int] = dict.fromkeys(range(len(parts)), 0)
    running: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        for index in running:
            kept[index] += tensor.numel()
        return tensor

    handles = [
        handle
        for index, module in enumerate(parts)
        for handle in (
            module.register_forward_pre_hook(lambda *_, index=index: running.append(index)),
            module.register_forward_hook(lambda *_: running.clear()),
        )
    ]
    model.train()
    model.backbone.set_trainable_blocks(blocks)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        maps = model.backbone(torch.rand(2, 3, 32, 64))
    for handle in handles:
        handle.remove()
    learns = len(parts) if blocks is None else blocks
    assert [bool(kept[i]) for i in range(len(parts))] == [i >= len(parts) - learns for i in range(len(parts))]
    assert all(level.requires_grad for level in maps)
