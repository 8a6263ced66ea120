"""DinoAdapter inside a detector: its configuration, its stages, a step of training, its deployed form."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.assembly import build_criterion, build_model, build_postprocessor, load
from src.core import Experiment, StageSettings
from src.deploy.export.onnx_graph import DeployModel, export_onnx
from src.deploy.export.onnx_ops import translations
from src.deploy.lean import make_lean
from src.deploy.metadata import ModelCard
from src.nn.backbone import DinoAdapter
from src.nn.deploy import to_deploy
from src.nn.dfine import DFINE
from src.optim import Rule, parameter_groups
from src.solver.stages import plan_stages, release_backbone
from src.structures import ClassNames
from tests.exported import verify_onnx


def tiny(repo_root: Path, *overrides: str) -> tuple[Experiment, DFINE]:
    path = repo_root / "configs" / "dfine" / "dfine_dino_adapter_s_coco.yml"
    knobs = ["pretrained=False", "embed_dim=32", "depth=4", "num_heads=2", "layer_scale=0.5"]
    knobs += ["prior_channels=4", "out_channels=[16,16,16]"]
    small = ["hidden_dim=16", "nhead=2", "dim_feedforward=16"]
    experiment = load(
        path,
        [
            *(f"DinoAdapter.{knob}" for knob in knobs),
            *(f"HybridEncoder.{knob}" for knob in ("in_channels=[16,16,16]", *small)),
            *(f"DFINETransformer.{knob}" for knob in (*small, "num_layers=2", "num_queries=20")),
            "num_classes=3",
            *overrides,
        ],
    )
    torch.manual_seed(0)
    return experiment, build_model(experiment)


def groups_of(experiment: Experiment, model: nn.Module, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    rules = [Rule(group.params, group.lr, group.weight_decay) for group in experiment.optimizer.params]
    settings = {"lr": experiment.optimizer.lr, "weight_decay": experiment.optimizer.weight_decay}
    return parameter_groups(model, rules, **settings, layer_decay=layer_decay)


def test_stated_counts_are_what_is_built(repo_root: Path) -> None:
    path = repo_root / "configs" / "dfine" / "dfine_dino_adapter_s_coco.yml"
    model = build_model(load(path))
    of_vit, of_backbone, together = (
        sum(p.numel() for p in part.parameters()) for part in (model.backbone.vit, model.backbone, model)
    )
    assert f"{together:,} parameters" in path.read_text()
    page = (repo_root / "docs" / "dino_adapter.md").read_text()
    assert f"| {of_vit:,} | {of_backbone - of_vit:,} | {together:,} |" in page


@pytest.mark.parametrize("name", ["dinov3_small", "dinov2_small", "dinov2_small_reg4"])
def test_the_vit_learns_slowly_and_vectors_do_not_decay(repo_root: Path, name: str) -> None:
    experiment, model = tiny(repo_root, f"DinoAdapter.model_name={name}")
    groups = groups_of(experiment, model)
    rates = {n: (g["lr"], g["weight_decay"]) for g in groups for n in g["param_names"]}
    for key, parameter in model.backbone.named_parameters():
        of_vit = key.startswith("vit.")
        plain = parameter.dim() == 1 or key.endswith(("_token", "pos_embed", "level_embed"))
        assert rates[f"backbone.{key}"] == (1e-5 if of_vit else 2.5e-4, 0 if plain else 1.25e-4), key


def test_layers_of_the_vit_decay_and_the_adapter_does_not(repo_root: Path) -> None:
    experiment, model = tiny(repo_root, "DinoAdapter.model_name=dinov2_small")
    groups = groups_of(experiment, model, layer_decay=0.5)
    rates = {n: g["lr"] for g in groups for n in g["param_names"]}
    assert rates["backbone.vit.norm.weight"] == 1e-5
    assert rates["backbone.vit.blocks.3.attn.qkv.weight"] == 0.5e-5
    assert rates["backbone.vit.pos_embed"] == rates["backbone.vit.patch_embed.proj.weight"] == 1e-5 / 32
    assert rates["backbone.injectors.0.gamma"] == rates["backbone.prior.projections.0.weight"] == 2.5e-4


def test_stages_release_the_vit(repo_root: Path) -> None:
    experiment, model = tiny(repo_root, "DinoAdapter.freeze_backbone_epochs=1")
    optimizer = torch.optim.AdamW(groups_of(experiment, model))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    backbone = model.backbone
    stages = plan_stages(
        [StageSettings(start=0), StageSettings(start=2, backbone=2, backbone_lr_factor=0.5)],
        epochs=3,
        num_blocks=backbone.num_blocks,
        freeze_backbone=backbone.freeze_backbone,
        freeze_epochs=backbone.freeze_backbone_epochs,
    )
    assert [stage.backbone for stage in stages] == ["frozen", "all", 2]
    learnt = []
    for stage in stages:
        release_backbone(model.train(), stage, optimizer, schedule)
        learnt.append({n for n, p in backbone.named_parameters() if p.requires_grad})
        assert backbone.prior.training and backbone.projections.training
    beside = {n for n, _ in backbone.named_parameters() if not n.startswith("vit.")}
    assert learnt[0] == beside and learnt[1] == {n for n, _ in backbone.named_parameters()}
    assert beside < learnt[2] < learnt[1]
    rates = {group["lr"] for group in optimizer.param_groups if group["name"].startswith(r"^backbone\.vit")}
    assert rates == {0.5e-5}


@pytest.mark.parametrize("blocks", [None, 0])
@pytest.mark.parametrize("name", ["dinov3_small", "dinov2_small_reg4"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_step_of_training(
    repo_root: Path, make_targets: Any, name: str, blocks: int | None, autocast: bool
) -> None:
    experiment, model = tiny(repo_root, f"DinoAdapter.model_name={name}")
    model.train().backbone.set_trainable_blocks(blocks)
    optimizer = torch.optim.AdamW(groups_of(experiment, model))
    targets = make_targets((2, 0), num_classes=3)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(3):  # an injector's gains move first, then its offsets' weights, then what they are of
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model(torch.rand(2, 3, 96, 70), targets)
        losses = build_criterion(experiment)(output, targets)
        loss = sum(losses.values())
        assert loss.isfinite()
        loss.backward()
        optimizer.step()
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learning == {n for n, p in model.named_parameters() if p.grad is not None}
    for key, parameter in model.named_parameters():
        if key.startswith("backbone.vit.") and blocks == 0:
            assert torch.equal(parameter, before[key]), key
        elif key.startswith("backbone."):
            assert parameter.isfinite().all() and not torch.equal(parameter, before[key]), key


def deployed_pair(repo_root: Path, fill: Any, *overrides: str) -> tuple[Experiment, DFINE, nn.Module]:
    """A detector and its deployed form, which gives the same maps."""
    experiment, model = tiny(repo_root, *overrides)
    fill(model).eval()
    deployed = to_deploy(model)
    kinds = {type(module) for module in deployed.modules()}
    assert nn.BatchNorm2d not in kinds and DinoAdapter in kinds
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        for found, expected in zip(deployed.backbone(images), model.backbone(images), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    return experiment, model, deployed


@torch.no_grad()
def test_onnx_runtime_gives_the_same_maps(repo_root: Path, tmp_path: Path, fill_by_name: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    shallow = ("DinoAdapter.depth=1", "DinoAdapter.num_interactions=1")
    _, model, deployed = deployed_pair(repo_root, fill_by_name, *shallow)
    torch.onnx.export(
        make_lean(deployed.backbone),
        (torch.rand(2, 3, 64, 96),),
        tmp_path / "adapter.onnx",
        dynamo=True,
        verbose=False,
        optimize=False,  # for speed
        dynamic_shapes=({0: torch.export.Dim("N")},),
        custom_translation_table=translations(),
    )
    session = onnxruntime.InferenceSession(tmp_path / "adapter.onnx")
    for batch in (1, 3):
        images = torch.rand(batch, 3, 64, 96)
        maps = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        for found, expected in zip(maps, model.backbone(images), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov3_small", "dinov2_small", "dinov2_small_reg4"])
def test_a_detector_of_each_family_exports(
    repo_root: Path, tmp_path: Path, fill_by_name: Any, name: str
) -> None:
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    experiment, model, deployed = deployed_pair(repo_root, fill_by_name, f"DinoAdapter.model_name={name}")
    postprocessor = build_postprocessor(experiment)
    card = ModelCard(ClassNames(("a", "b", "c"), (1, 2, 3)), (64, 96), "adapter")
    path = tmp_path / "adapter.onnx"
    exported = export_onnx(DeployModel(deployed, postprocessor).eval(), path, card)
    assert not {"GridSample", "BatchNormalization"} & set(exported.operators)
    whole = DeployModel(model, postprocessor).eval()
    for batch in (1, 3):
        agreement = verify_onnx(path, whole, batch=batch)
        assert agreement.num_compared > 0 and agreement.max_score_diff < 1e-4
