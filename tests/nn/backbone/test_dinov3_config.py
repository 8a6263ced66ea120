from pathlib import Path

import pytest
import torch

from src.assembly import build_criterion, build_model, build_postprocessor, load
from src.core import Experiment
from src.nn.dfine import DFINE
from src.optim import Rule, parameter_groups
from src.structures import Level, Targets

LIMIT = 25_000_000


@pytest.fixture(scope="module")
def experiment(repo_root: Path) -> Experiment:
    return load(repo_root / "configs" / "dfine" / "dfine_dinov3_s_coco.yml")


@pytest.fixture(scope="module")
def model(experiment: Experiment) -> DFINE:
    return build_model(experiment)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_all_training_parameters_stay_within_the_limit(model: DFINE, repo_root: Path) -> None:
    parts = {
        "ViT-S/16": model.backbone.vit,
        "spatial tuning adapter": model.backbone.sta,
        "HybridEncoder": model.encoder,
        "DFINETransformer": model.decoder,
    }
    counts = {name: count(part) for name, part in parts.items()}
    total = count(model)
    assert sum(counts.values()) == total <= LIMIT
    assert counts["ViT-S/16"] == 21_586_944
    assert any("denoising" in name for name, _ in model.named_parameters())
    page = (repo_root / "docs" / "dinov3_backbone.md").read_text()
    for name, number in {**counts, "together": total}.items():
        assert f"{name} | {number:,} |" in page


def test_the_named_parts_are_built(experiment: Experiment, model: DFINE) -> None:
    assert model.backbone.levels == (Level(192, 8), Level(192, 16), Level(192, 32))
    assert model.backbone.model_name == "dinov3_small" and model.backbone.pretrained
    assert model.backbone.checkpoint_path == "weights/dinov3_vits16_pretrain_lvd1689m-08c60483.pth"
    build_criterion(experiment)
    build_postprocessor(experiment)


WRITTEN_BY_A_USER = """
DFINE: {backbone: DINOv3Backbone}
DINOv3Backbone: {model_name: 'dinov3_small', pretrained: True, out_channels: [256, 256, 256],
                 feat_strides: [8, 16, 32],
                 checkpoint_path: weights/dinov3_vits16_pretrain_lvd1689m-08c60483.pth,
                 freeze_backbone: False, freeze_backbone_epochs: 10}
HybridEncoder: {in_channels: [256, 256, 256], feat_strides: [8, 16, 32]}
"""


@pytest.mark.parametrize("base", ["dfine_dinov3_s_coco.yml", "dfine_hgnetv2_l_coco.yml"])
def test_the_documented_yaml_is_accepted(repo_root: Path, tmp_path: Path, base: str) -> None:
    path = tmp_path / "mine.yml"
    include = repo_root / "configs" / "dfine" / base
    rules = "optimizer: {type: AdamW, lr: 1.e-4, params: []}\n"
    path.write_text(f"__include__: ['{include}']\n{WRITTEN_BY_A_USER}{rules}")
    model = build_model(load(path))
    assert model.backbone.levels == (Level(256, 8), Level(256, 16), Level(256, 32))
    with pytest.raises(ValueError, match="in_channels"):
        build_model(load(path, ["HybridEncoder.in_channels=[192,192,192]"]))


def test_the_vit_learns_slowly_and_its_vectors_do_not_decay(experiment: Experiment, model: DFINE) -> None:
    optimizer = experiment.optimizer
    rules = [Rule(group.params, group.lr, group.weight_decay) for group in optimizer.params]
    groups = parameter_groups(model, rules, lr=optimizer.lr, weight_decay=optimizer.weight_decay)
    rates = {name: (g["lr"], g["weight_decay"]) for g in groups for name in g["param_names"]}
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    assert rates.keys() == shapes.keys()
    for name, (lr, weight_decay) in rates.items():
        assert lr == (1e-5 if name.startswith("backbone.vit.") else 2.5e-4), name
        if name.startswith("backbone."):
            plain = len(shapes[name]) == 1 or "token" in name
            assert weight_decay == (0 if plain else 1.25e-4), name
        elif "norm" in name or "bias" in name:
            assert weight_decay == 0, name


@pytest.mark.parametrize("blocks", [None, 0])
def test_every_trainable_parameter_gets_a_gradient(
    experiment: Experiment, model: DFINE, blocks: int | None
) -> None:
    torch.manual_seed(0)
    model.train()
    model.backbone.set_trainable_blocks(blocks)
    model.zero_grad(set_to_none=True)
    targets = Targets(
        torch.tensor([[0.5, 0.5, 0.4, 0.6]]), torch.tensor([3]), (1, 0), (1, 2), ((64, 64),) * 2
    )
    losses = build_criterion(experiment)(model(torch.rand(2, 3, 64, 64), targets), targets)
    sum(losses.values()).backward()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    got = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learning == got
    assert any(name.startswith("backbone.vit.") for name in got) == (blocks is None)
    assert any(name.startswith("backbone.sta.") for name in got)
    model.backbone.set_trainable_blocks(None)
