import re
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.models
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.nn.backbone import DinoAdapter, load_pretrained
from src.nn.backbone.dinov2 import (
    DINOV2_ALIASES,
    build_dinov2,
    convert_dinov2,
    embed_dinov2,
)
from src.nn.backbone.vit import ViTShape, run_blocks

SMALL = ViTShape(embed_dim=24, depth=2, num_heads=2, layer_scale=0.5)
NAMES = ("dinov2_small", "dinov2_small_reg4")
State = dict[str, Tensor]


def random_like(state: State) -> State:
    generator = torch.Generator().manual_seed(5)
    return {name: 0.3 * torch.randn(value.shape, generator=generator) for name, value in state.items()}


def timm_state(name: str) -> State:
    """A file of timm's: patches of 14 pixels, 37 x 37 positions."""
    shape = {"embed_dim": 24, "depth": 2, "num_heads": 2, "init_values": 0.5}
    return random_like(timm.create_model(DINOV2_ALIASES[name], **shape).state_dict())


def official(state: State) -> State:
    """The same weights as Meta's code would save them, for the models with registers too."""
    renamed = {**state, "mask_token": torch.ones(1, 24)}
    if "reg_token" in renamed:
        place = torch.full((1, 1, 24), 0.25)
        renamed["register_tokens"] = renamed.pop("reg_token")
        renamed["cls_token"] = renamed["cls_token"] - place
        renamed["pos_embed"] = torch.cat((place, renamed["pos_embed"]), 1)
    return renamed


def small(path: Path | None, name: str) -> DinoAdapter:
    """A small ViT that asks for the weights in `path`, which the constructor would refuse."""
    knobs: dict[str, Any] = {**SMALL._asdict(), "num_interactions": 2, "prior_channels": 2}
    adapter = DinoAdapter(
        model_name=name,
        pretrained=False,
        checkpoint_path=path and str(path),
        out_channels=(8, 8, 8),
        **knobs,
    )
    adapter.pretrained = True
    return adapter


def features(vit: Any, images: Tensor) -> Tensor:
    """All tokens [B, P + h * w, D] after the final norm."""
    tokens, positions, _ = embed_dinov2(vit, images)
    return vit.norm(run_blocks(vit, 0, len(vit.blocks), tokens, positions))


def test_every_alias_is_known_to_timm() -> None:
    assert all(timm.is_model(name) for name in DINOV2_ALIASES.values())


@pytest.mark.parametrize(
    ("shape", "message"),
    [(SMALL._replace(depth=0), "above 0"), (SMALL._replace(embed_dim=25), "divisible")],
)
def test_impossible_shapes_are_refused(shape: ViTShape, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_dinov2("dinov2_small", shape)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_tokens_are_timms_own(name: str) -> None:
    vit = build_dinov2(name, SMALL).eval()
    vit.load_state_dict(random_like(vit.state_dict()))
    images = torch.rand(1, 3, 592, 592)  # 37 x 37 patches: positions as they are stored
    torch.testing.assert_close(features(vit, images), vit.forward_features(images), atol=1e-5, rtol=1e-5)


class Tokens(nn.Module):
    """The embedding alone, as a module that can be exported."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.vit = build_dinov2(name, SMALL._replace(depth=1))
        self.vit.load_state_dict(random_like(self.vit.state_dict()))

    def forward(self, images: Tensor) -> Tensor:
        return embed_dinov2(self.vit, images).tokens


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_stretched_positions_survive_export(tmp_path: Path, name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    tokens, images = Tokens(name).eval(), torch.randn(2, 3, 64, 96)
    torch.onnx.export(tokens, (images,), tmp_path / "tokens.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "tokens.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), tokens(images), atol=1e-4, rtol=1e-4)


def from_hugging_face(state: State) -> State:
    """transformers' weights as Meta's code would save them."""
    names = [
        (r"^encoder\.layer\.", "blocks."),
        (r"^layernorm\.", "norm."),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.", ""),
        (r"\.attention\.o_proj\.", ".attn.proj."),
        (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    ]
    renamed = dict(state)
    for pattern, name in names:
        renamed = {re.sub(pattern, name, key): value for key, value in renamed.items()}
    for key in [key for key in renamed if ".attention.q_proj." in key]:
        parts = [renamed.pop(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        renamed[key.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    return renamed


@pytest.mark.parametrize("size", [(64, 96), (592, 592), (640, 32)])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_features_are_those_of_transformers(name: str, size: tuple[int, int]) -> None:
    """At any size, and so with positions stretched as each kind of model was trained."""
    peer = pytest.importorskip("transformers", reason="pip install transformers")
    kind = "Dinov2WithRegisters" if "reg4" in name else "Dinov2"
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(peer, f"{kind}Config")(**sizes, patch_size=16, image_size=592)
    theirs = getattr(peer, f"{kind}Model")(config).eval()
    state = random_like(theirs.state_dict())
    theirs.load_state_dict(state)
    vit = build_dinov2(name, SMALL).eval()
    vit.load_state_dict(convert_dinov2(from_hugging_face(state)))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = theirs(images).last_hidden_state
    torch.testing.assert_close(features(vit, images), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("style", [official, dict])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_patches_of_14_loads_strictly(tmp_path: Path, name: str, style: Any) -> None:
    given = timm_state(name)
    assert given["patch_embed.proj.weight"].shape[-2:] == (14, 14)
    torch.save({"teacher": {f"backbone.{k}": v for k, v in style(given).items()}}, tmp_path / "vits14.pth")
    adapter = small(tmp_path / "vits14.pth", name)
    load_pretrained(adapter)
    loaded = adapter.vit.state_dict()
    assert loaded.keys() == given.keys()
    for key, value in given.items():
        if key != "patch_embed.proj.weight":
            torch.testing.assert_close(loaded[key], value)
    assert loaded["patch_embed.proj.weight"].shape[-2:] == (16, 16)


def test_a_patch_enlarged_to_16_gives_the_token_that_it_gave_at_14() -> None:
    state = timm_state("dinov2_small")
    kernel = state["patch_embed.proj.weight"]
    resampled = convert_dinov2(state)["patch_embed.proj.weight"]
    patch = torch.randn(5, 3, 14, 14)
    larger = F.interpolate(patch, size=(16, 16), mode="bicubic", antialias=True)
    torch.testing.assert_close(F.conv2d(larger, resampled), F.conv2d(patch, kernel), atol=1e-3, rtol=1e-3)


def test_gated_layers_have_timms_names() -> None:
    state = {"patch_embed.proj.weight": torch.ones(4, 3, 16, 16), "blocks.0.mlp.w12.bias": torch.ones(2)}
    given = convert_dinov2({**state, "blocks.0.mlp.w3.weight": torch.ones(1), "head.bias": torch.ones(1)})
    assert set(given) == {"patch_embed.proj.weight", "blocks.0.mlp.fc1.bias", "blocks.0.mlp.fc2.weight"}


@pytest.mark.parametrize("change", ["register_tokens", "blocks.1.norm1.bias", "pos_embed", "cls_token"])
def test_a_file_that_does_not_fit_is_refused_whole(tmp_path: Path, change: str) -> None:
    state = official(timm_state("dinov2_small"))
    state[change] = torch.ones(1, 5, 24)
    torch.save(state, tmp_path / "weights.pth")
    adapter = small(tmp_path / "weights.pth", "dinov2_small")
    before = {name: value.clone() for name, value in adapter.state_dict().items()}
    with pytest.raises(ValueError, match="DinoAdapter: .*weights.pth does not fit the model 'dinov2_small'"):
        load_pretrained(adapter)
    assert all(torch.equal(value, before[name]) for name, value in adapter.state_dict().items())


@pytest.mark.parametrize(("wanted", "file"), [("dinov3_small", NAMES[0]), (NAMES[0], "dinov3_small")])
def test_the_other_familys_file_is_refused(tmp_path: Path, wanted: str, file: str) -> None:
    torch.save(small(None, file).vit.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=f"does not fit the model '{wanted}'"):
        load_pretrained(small(tmp_path / "weights.pth", wanted))


def test_a_file_without_a_vit_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="no DINOv2 ViT"):
        load_pretrained(small(tmp_path / "weights.pth", NAMES[0]))


def test_a_dinov3_file_fills_the_adapter_as_well(tmp_path: Path) -> None:
    filled, wanted = small(tmp_path / "weights.pth", "dinov3_small"), small(None, "dinov3_small")
    state = {name: torch.randn_like(value) for name, value in wanted.vit.state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    load_pretrained(filled)
    assert all(torch.equal(value, state[name]) for name, value in filled.vit.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_without_a_path_timms_hub_is_asked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked: list[str] = []
    state = timm_state(name)

    def download(repository: str, **_: Any) -> State:
        asked.append(repository)
        return state

    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", download)
    adapter = small(None, name)
    load_pretrained(adapter)
    assert asked == [f"timm/{DINOV2_ALIASES[name]}.lvd142m"]
    assert torch.equal(adapter.vit.pos_embed, state["pos_embed"])


def test_a_missing_file_stops_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="DinoAdapter.checkpoint_path.*DinoAdapter.pretrained=False"):
        load_pretrained(small(tmp_path / "missing.pth", NAMES[1]))
