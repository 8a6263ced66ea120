"""How many nodes the exported graph has: a count holds on a busy machine, milliseconds do not."""

from pathlib import Path

import pytest
import torch
from torch import nn

from src import assembly
from src.deploy.export.onnx_graph import PLAIN, DeployModel, GraphOptions, export_onnx
from src.deploy.metadata import ModelCard
from src.nn.deploy import to_deploy
from tests.exported import verify_onnx

pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")

SMALL = [
    "DINOv3Backbone.depth=3",
    "DINOv3Backbone.interaction_indexes=[0,1,2]",
    "DFINETransformer.num_layers=2",
    "eval_spatial_size=[64,96]",
]


def export(config: Path, overrides: list[str], folder: Path, sampling="gather", options=PLAIN):
    torch.manual_seed(0)
    model, postprocessor, classes, experiment = assembly.load_detector(config, None, overrides)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):  # two that are alike would become one node
            nn.init.uniform_(module.weight, 0.8, 1.2)
    card = ModelCard(classes, experiment.eval_spatial_size, config.stem)
    path = folder / "model.onnx"
    exported = export_onnx(DeployModel(to_deploy(model, sampling), postprocessor).eval(), path, card, options)
    return exported, DeployModel(model, postprocessor).eval()


def assert_frugal(exported, model: DeployModel, most: int) -> None:
    nodes = exported.operators
    assert exported.num_nodes <= most, nodes
    assert not {"GridSample", "BatchNormalization", "Sin", "Cos", "Tile", "Pad", "Erfc"} & set(nodes)
    norms = sum(isinstance(module, nn.LayerNorm) for module in model.modules())
    taps = len(model.model.backbone.taps)  # the ViT's last norm runs once for each
    assert nodes["LayerNormalization"] == norms + taps - 1
    blocks = len(model.model.backbone.vit.blocks)
    layers = model.model.decoder.eval_idx + 1
    assert nodes["Erf"] == blocks + 1 + 3  # one for each block, the encoder's layer and the detail branch
    assert nodes["Softmax"] == blocks + 1 + 3 * layers  # the quality estimator shares the last one


def test_a_small_model(repo_root: Path, tmp_path: Path) -> None:
    exported, model = export(repo_root / "configs/dfine/dfine_dinov3_demo.yml", SMALL, tmp_path)
    # the model for COCO has no part more than four times as often (12 blocks, 4 layers), and 1,178 nodes when
    # this one has 644 (torch 2.15; 2.10 writes 695): the 56 more that are allowed here are at most 224 there,
    # of the 1,500 that it may have
    assert_frugal(exported, model, 700)
    assert verify_onnx(exported.path, model, batch=1).num_compared > 40


@pytest.mark.slow
def test_a_small_model_for_any_size(repo_root: Path, tmp_path: Path) -> None:
    config = repo_root / "configs/dfine/dfine_dinov3_demo.yml"
    exported, model = export(config, SMALL, tmp_path, options=GraphOptions(dynamic_size=True))
    assert exported.num_nodes <= 880, exported.operators
    assert not {"GridSample", "BatchNormalization", "Erfc"} & set(exported.operators)
    assert verify_onnx(exported.path, model, batch=1).num_compared > 40


@pytest.mark.slow
def test_a_small_model_with_bilinear_sampling(repo_root: Path, tmp_path: Path) -> None:
    config = repo_root / "configs/dfine/dfine_dinov3_demo.yml"
    exported, model = export(config, SMALL, tmp_path, sampling="bilinear")
    layers = model.model.decoder.eval_idx + 1
    assert exported.operators["GridSample"] == layers * len(model.model.encoder.levels)
    assert exported.num_nodes <= 615, exported.operators
    assert verify_onnx(exported.path, model, batch=1).num_compared > 40


@pytest.mark.slow
def test_the_model_for_coco(repo_root: Path, tmp_path: Path) -> None:
    exported, model = export(repo_root / "configs/dfine/dfine_dinov3_s_coco.yml", [], tmp_path)
    assert_frugal(exported, model, 1250)
