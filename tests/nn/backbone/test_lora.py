"""LoRA: what learns, what it is called, and that it reaches the attention."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_dinov3_keys import hugging_face, official

from src.assembly import build_model, dump, load
from src.core import ConfigError
from src.nn.backbone.dinov3_backbone import DINOv3Backbone
from src.nn.backbone.lora import LoRA, is_factor, under_base_layers
from src.nn.backbone.pretrained import load_pretrained
from src.nn.deploy import to_deploy
from src.optim import ModelEMA

IMAGES = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(7))
RANK_4 = LoRA(rank=4, alpha=8)
SMALL = {"pretrained": False, "embed_dim": 48, "depth": 3, "num_heads": 3, "layer_scale": 0.5}


def small(lora: LoRA | None = RANK_4, **knobs: Any) -> DINOv3Backbone:
    torch.manual_seed(0)
    return DINOv3Backbone(**{**SMALL, "out_channels": (8, 8, 8), "lora": lora, **knobs})


def scrambled(backbone: DINOv3Backbone) -> DINOv3Backbone:
    """Factors as after some training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in backbone.named_parameters():
            if is_factor(name):
                p.copy_(torch.randn(p.shape, generator=generator) / p.shape[1] ** 0.5)
    return backbone


def learning(backbone: DINOv3Backbone) -> set[str]:
    return {name for name, p in backbone.vit.named_parameters() if p.requires_grad}


def factors(backbone: DINOv3Backbone) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in backbone.vit.named_parameters() if is_factor(name)}


def test_the_model_starts_unchanged() -> None:
    plain, lora = small(None), small()
    lora.load_state_dict(under_base_layers(plain.state_dict(), lora.state_dict()), strict=False)
    assert all(torch.equal(x, y) for x, y in zip(plain(IMAGES), lora(IMAGES), strict=True))


def test_names_and_sizes() -> None:
    shapes = {name: tuple(p.shape) for name, p in factors(small()).items() if name.startswith("blocks.2.")}
    assert shapes == {
        "blocks.2.attn.qkv.lora_A.default.weight": (4, 48),
        "blocks.2.attn.qkv.lora_B.default.weight": (144, 4),
        "blocks.2.attn.proj.lora_A.default.weight": (4, 48),
        "blocks.2.attn.proj.lora_B.default.weight": (48, 4),
    }
    assert len(factors(small())) == 3 * 4


@pytest.mark.parametrize("layer", ["qkv", "proj"])
def test_the_factors_of_both_layers_reach_the_output(layer: str) -> None:
    backbone = small()
    before = backbone._maps(IMAGES)[0]
    with torch.no_grad():
        factors(backbone)[f"blocks.0.attn.{layer}.lora_B.default.weight"].normal_()
    assert (backbone._maps(IMAGES)[0] - before).abs().max() > 1e-2


def test_alpha_scales_the_factors() -> None:
    outputs = [scrambled(small(LoRA(rank=4, alpha=alpha)))._maps(IMAGES)[0] for alpha in (8, 16)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-2


def test_attention_that_would_pass_the_factors_by_is_refused() -> None:
    with pytest.raises(ValueError, match="lora.*_qkvb"):
        small(model_name="vit_small_patch16_dinov3_qkvb")


def test_without_peft_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch, repo_root: Path) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    small(None)
    with pytest.raises(
        ValueError, match=r"lora needs.*peft.*pip install -r (requirements-lora\.txt)"
    ) as caught:
        small()
    assert "\n" not in str(caught.value)
    assert "peft" in (repo_root / "requirements-lora.txt").read_text()


@pytest.mark.parametrize(("blocks", "indices"), [(None, "012"), (2, "12"), (0, "")])
def test_factors_learn_where_the_stage_says_and_base_weights_never(blocks: int | None, indices: str) -> None:
    backbone = scrambled(small()).train()
    backbone.set_trainable_blocks(blocks)
    assert learning(backbone) == {name for name in factors(backbone) if name.split(".")[1] in indices}
    assert all(p.requires_grad for p in backbone.sta.parameters())
    before = copy.deepcopy(backbone.vit.state_dict())
    sum(x.square().sum() for x in backbone(IMAGES)).backward()
    torch.optim.AdamW(backbone.parameters(), lr=0.1, weight_decay=0.1).step()
    changed = {
        name for name, value in backbone.vit.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == learning(backbone)


@pytest.mark.parametrize("blocks", [-1, 4])
def test_there_are_not_so_many_blocks(blocks: int) -> None:
    with pytest.raises(ValueError, match="0 to 3"):
        small().set_trainable_blocks(blocks)


def test_what_is_frozen_rests_and_what_learns_does_not() -> None:
    backbone = small()
    backbone.set_trainable_blocks(1)
    backbone.eval().train()
    assert [block.attn.training for block in backbone.vit.blocks] == [False, False, True]
    assert not backbone.vit.patch_embed.training and not backbone.vit.norm.training


@pytest.mark.parametrize("style", ["official", "timm", "layer.", "model.layer."])
def test_pretrained_weights_of_every_style_fill_the_base(tmp_path: Path, style: str) -> None:
    state = {name: torch.randn_like(value) for name, value in small(None).vit.state_dict().items()}
    if style == "official":
        given = {k: v * 0 if k.endswith(("qkv.bias", "bias_mask")) else v for k, v in official(state).items()}
    else:
        given = state if style == "timm" else hugging_face(state, style)
    torch.save(given, tmp_path / "weights.pth")
    backbone = small(checkpoint_path=str(tmp_path / "weights.pth"))
    backbone.pretrained = True
    own = copy.deepcopy(factors(backbone))
    load_pretrained(backbone)
    filled = backbone.vit.state_dict()
    expected = under_base_layers(state, filled)
    assert "blocks.1.attn.qkv.base_layer.weight" in expected
    for name, value in filled.items():
        if "layer" in style and name == "rope.periods":
            continue  # these styles have none
        assert torch.equal(value, own[name] if is_factor(name) else expected[name]), name


def test_pretrained_weights_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    state = small(None, depth=2).vit.state_dict()
    torch.save(state, tmp_path / "weights.pth")
    backbone = small(checkpoint_path=str(tmp_path / "weights.pth"))
    backbone.pretrained = True
    with pytest.raises(ValueError, match=r"blocks\.2\..* is not there"):
        load_pretrained(backbone)


def test_a_plain_state_gets_the_names_and_a_named_one_keeps_them() -> None:
    plain, target = small(None).state_dict(), small().state_dict()
    named = under_base_layers(plain, target)
    assert {name for name in target if name not in named} == {name for name in target if is_factor(name)}
    assert under_base_layers(target, target) == target
    assert under_base_layers(plain, plain) == plain


def test_saving_copying_and_averaging() -> None:
    backbone = scrambled(small())
    again = small()
    again.load_state_dict(backbone.state_dict())
    assert all(torch.equal(x, y) for x, y in zip(backbone(IMAGES), again(IMAGES), strict=True))
    ema = ModelEMA(small(), decay=0.5, warmups=0)
    name = "vit.blocks.0.attn.qkv.lora_B.default.weight"
    ema.update(backbone)
    torch.testing.assert_close(ema.module.get_parameter(name), backbone.get_parameter(name) / 2)


def test_merging_leaves_the_plain_model() -> None:
    backbone = scrambled(small()).eval()
    merged = copy.deepcopy(backbone)
    merged.merge_lora()
    merged.merge_lora()  # nothing is left to merge
    assert merged.state_dict().keys() == small(None).state_dict().keys()
    assert (merged._maps(IMAGES)[0] - backbone._maps(IMAGES)[0]).abs().max() < 1e-5
    assert (merged._maps(IMAGES)[0] - small(None)._maps(IMAGES)[0]).abs().max() > 1e-2
    small(None).merge_lora()


def test_the_yaml(repo_root: Path, tmp_path: Path) -> None:
    config = repo_root / "configs" / "dfine" / "dfine_dinov3_demo.yml"
    experiment = load(config, ["DINOv3Backbone.lora={rank: 4, alpha: 8}"])
    model = build_model(experiment)
    assert model.get_parameter("backbone.vit.blocks.0.attn.qkv.lora_A.default.weight").shape == (4, 192)
    (tmp_path / "again.yml").write_text(dump(experiment))
    assert load(tmp_path / "again.yml").components["DINOv3Backbone"]["lora"] == RANK_4
    with pytest.raises(ConfigError, match=r"DINOv3Backbone\.lora\.rank must be at least 1, not 0"):
        load(config, ["DINOv3Backbone.lora={rank: 0}"])
    with pytest.raises(ConfigError, match=r"DINOv3Backbone\.lora\.ranks"):
        load(config, ["DINOv3Backbone.lora={ranks: 4}"])


def test_the_limit_holds_for_the_model_that_is_deployed(repo_root: Path) -> None:
    config = repo_root / "configs" / "dfine" / "dfine_dinov3_s_coco.yml"
    plain, lora = (
        build_model(load(config, knobs)) for knobs in ([], ["DINOv3Backbone.lora={rank: 8, alpha: 16}"])
    )
    size = {
        name: sum(p.numel() for p in model.parameters()) for name, model in (("plain", plain), ("lora", lora))
    }
    assert size["lora"] - size["plain"] == 12 * 8 * ((384 + 1152) + (384 + 384))  # gone once they are merged
    deployed = [sum(p.numel() for p in to_deploy(model).parameters()) for model in (plain, lora)]
    assert deployed[0] == deployed[1] <= 25_000_000


def test_random_weights_that_would_never_learn_are_refused() -> None:
    with pytest.raises(ValueError, match=r"DINOv3Backbone\.lora: .* with pretrained: False these are random"):
        load_pretrained(small())
    load_pretrained(small(None))
