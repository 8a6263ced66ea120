"""The published D-FINE models, built from their files: parameters to the last digit, and how they train."""

import re
from pathlib import Path

import pytest
from torch import nn

from src import assembly
from src.nn.decoder import DFINETransformer
from src.nn.deploy import to_deploy
from src.nn.dfine import DFINE
from src.nn.encoder import HybridEncoder
from src.nn.layers import FrozenBatchNorm2d
from src.optim import Rule, parameter_groups

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "dfine"
UP_AND_REG_SCALE = 2  # upstream's two frozen parameters are plain numbers here

# size: parameters in training and deployed, as upstream counts them
PUBLISHED = {
    "n": (3_782_693, 3_753_799),
    "s": (10_321_877, 10_237_491),
    "m": (19_590_064, 19_248_189),
    "l": (31_244_152, 30_724_195),
    "x": (62_621_560, 61_601_635),
}
NO_DECAY = re.compile(r"norm|bn|lab|bias")
CONFIG_NAMES = [f"dfine_hgnetv2_{size}_coco.yml" for size in PUBLISHED] + [
    f"objects365/dfine_hgnetv2_{size}_{stage}.yml" for size in "smlx" for stage in ("obj365", "obj2coco")
]


def build(file: str) -> DFINE:
    return assembly.build_model(assembly.load(CONFIGS / file))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def kept_by_upstream(model: DFINE) -> int:
    """What upstream's deploy form holds as parameters and ours does not.

    It keeps `up` and `reg_scale`, the embedding of noised labels, and the norms of the backbone and of the
    projections. Ours folds every norm: of a norm's scale and shift one number a channel remains, the
    convolution's bias. A frozen norm has buffers alone there, but the bias here all the same.
    """
    encoder, decoder = model.encoder, model.decoder
    assert isinstance(encoder, HybridEncoder) and isinstance(decoder, DFINETransformer)
    assert decoder.denoising_class_embed is not None
    parts = (model.backbone, encoder.input_proj, decoder.input_proj)
    norms = [module for part in parts for module in part.modules()]
    folded = sum(m.num_features for m in norms if isinstance(m, nn.BatchNorm2d))
    frozen = sum(m.weight.numel() for m in norms if isinstance(m, FrozenBatchNorm2d))
    return UP_AND_REG_SCALE + decoder.denoising_class_embed.weight.numel() + folded - frozen


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_the_published_ones(size: str) -> None:
    model = build(f"dfine_hgnetv2_{size}_coco.yml")
    train, deploy = PUBLISHED[size]
    assert count(model) + UP_AND_REG_SCALE == train
    assert count(to_deploy(model)) + kept_by_upstream(model) == deploy


def test_only_x_bends_its_bins_differently() -> None:
    scales = {size: build(f"dfine_hgnetv2_{size}_coco.yml").decoder.reg_scale for size in PUBLISHED}
    assert scales == {"n": 4, "s": 4, "m": 4, "l": 4, "x": 8}


@pytest.mark.parametrize("file", CONFIG_NAMES)
def test_norms_biases_and_affines_are_spared_of_decay(file: str) -> None:
    experiment = assembly.load(CONFIGS / file)
    stated = experiment.optimizer
    rules = [Rule(rule.params, rule.lr, rule.weight_decay) for rule in stated.params]
    groups = parameter_groups(
        assembly.build_model(experiment), rules, lr=stated.lr, weight_decay=stated.weight_decay
    )
    backbone_lr = stated.params[0].lr
    for group in groups:
        for name in group["param_names"]:
            assert group["weight_decay"] == (0 if NO_DECAY.search(name) else stated.weight_decay), name
            assert group["lr"] == (backbone_lr if name.startswith("backbone.") else stated.lr), name


@pytest.mark.parametrize(
    ("size", "trains"), [("n", True), ("s", True), ("m", True), ("l", False), ("x", False)]
)
def test_the_norms_of_small_backbones_train(size: str, trains: bool) -> None:
    backbone = build(f"dfine_hgnetv2_{size}_coco.yml").backbone.train()
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert bool(norms) == trains
    assert all(norm.training and norm.weight.requires_grad for norm in norms)
