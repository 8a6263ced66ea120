import hashlib
import importlib.util
import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import timm.models
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from src.nn.backbone.dinov3_backbone import DINOv3Backbone
from src.nn.backbone.hgnetv2 import HGNetv2
from src.nn.backbone.pretrained import load_pretrained
from src.nn.backbone.weight_files import read_state_dict

ZEROS = ("qkv.bias", "bias_mask", "mask_token")


def small(path: Path | None, model_name: str = "dinov3_small", **knobs: Any) -> DINOv3Backbone:
    """A small ViT that asks for the weights in `path`, which the constructor would refuse."""
    shape = {"embed_dim": 48, "depth": 3, "num_heads": 3, **knobs}
    backbone = DINOv3Backbone(
        model_name=model_name,
        pretrained=False,
        out_channels=(8, 8, 8),
        checkpoint_path=path and str(path),
        **shape,
    )
    backbone.pretrained = True
    return backbone


def vit_state(backbone: DINOv3Backbone) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in backbone.vit.state_dict().items()}


def filled_with(backbone: DINOv3Backbone, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in backbone.vit.state_dict().items())


def fill_module(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_fill", shared / "parity" / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def official_file(shared: Path, path: Path) -> None:
    """Writes a file with the released file's names, shapes and zeros, and deterministic weights."""
    names = json.loads((shared / "parity" / "dinov3_vits16_keys.json").read_text())
    state = {}
    for name, (shape, _) in names.items():
        zero = name.endswith(ZEROS)
        values = np.zeros(shape, np.float32) if zero else fill_module(shared).fill_array(name, tuple(shape))
        state[name] = torch.from_numpy(values)
    golden = np.load(shared / "parity" / "dinov3_vits16_features.npz")
    state["rope_embed.periods"] = torch.from_numpy(golden["rope_periods"])
    torch.save(state, path)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> DINOv3Backbone:
    path = tmp_path_factory.mktemp("weights") / "official.pth"
    official_file(shared, path)
    backbone = DINOv3Backbone(
        checkpoint_path=str(path), out_channels=(8, 8, 8), interaction_indexes=(5, 8, 11)
    )
    load_pretrained(backbone)
    return backbone.eval()


@pytest.mark.parametrize("size", [(640, 640), (256, 704), (224, 224)])
def test_official_features_at_any_size(loaded: DINOv3Backbone, shared: Path, size: tuple[int, int]) -> None:
    golden = np.load(shared / "parity" / "dinov3_vits16_features.npz")
    picture = fill_module(shared).image_batch(int(golden["seed"]), (1, 3, *size))
    mean, std = (torch.tensor(x)[:, None, None] for x in (loaded.image_mean, loaded.image_std))
    with torch.no_grad():
        maps = loaded._maps((torch.from_numpy(picture) - mean) / std)
    key = f"{size[0]}x{size[1]}"
    for index, taps in zip((5, 8, 11), maps, strict=True):
        np.testing.assert_allclose(
            taps[:, :4].numpy(), golden[f"{key}_layer{index}_first4"], rtol=0, atol=1e-5
        )
    patches = maps[-1].flatten(2).transpose(1, 2)[..., :8]
    np.testing.assert_allclose(patches.numpy(), golden[f"{key}_patch_first8"], rtol=0, atol=1e-5)


def test_official_periods_are_loaded_and_saved(loaded: DINOv3Backbone, shared: Path) -> None:
    golden = np.load(shared / "parity" / "dinov3_vits16_features.npz")
    assert np.array_equal(loaded.state_dict()["vit.rope.periods"].numpy(), golden["rope_periods"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"teacher": {f"backbone.{name}": value for name, value in state.items()}},
        lambda state: {"ema": {"module": state, "updates": 5}, "model": {"other": torch.ones(1)}},
    ],
)
def test_wrapped_files(tmp_path: Path, wrap: Any) -> None:
    state = vit_state(small(None))
    torch.save(wrap(state), tmp_path / "weights.pth")
    backbone = small(tmp_path / "weights.pth")
    assert not filled_with(backbone, state)
    load_pretrained(backbone)
    assert filled_with(backbone, state)


def test_safetensors(tmp_path: Path) -> None:
    state = vit_state(small(None))
    save_file(state, tmp_path / "model.safetensors")
    backbone = small(tmp_path / "model.safetensors")
    load_pretrained(backbone)
    assert filled_with(backbone, state)


def test_from_scratch_is_said_and_reads_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone = small(tmp_path / "missing.pth")
    backbone.pretrained = False
    before = vit_state(backbone)
    with caplog.at_level(logging.WARNING):
        load_pretrained(backbone)
    assert "random weights" in caplog.text and "missing.pth is not read" in caplog.text
    assert filled_with(backbone, before)


def test_a_missing_file_stops_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file") as caught:
        load_pretrained(small(tmp_path / "missing.pth"))
    message = str(caught.value)
    assert "\n" not in message
    for part in ("checkpoint_path", "missing.pth", "weights/README.md", "DINOv3Backbone.pretrained=False"):
        assert part in message


@pytest.mark.parametrize("content", [b"", b"<html>expired link</html>", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_damaged_file(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_pretrained(small(tmp_path / name))


def test_a_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"model": {"epoch": 1}}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        load_pretrained(small(tmp_path / "weights.pth"))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        read_state_dict(tmp_path / "weights.pth")


def test_the_hash_in_a_name_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state = vit_state(small(None))
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    good, bad = tmp_path / f"vits16-{digest[:8]}.pth", tmp_path / "vits16-08c60483.pth"
    for copy in (good, bad):
        copy.write_bytes(path.read_bytes())
    load_pretrained(small(good))
    with pytest.raises(ValueError, match=f"begins with 08c60483.*begins with {digest[:8]}"):
        load_pretrained(small(bad))


def test_weights_of_another_size_name_the_first_tensors(tmp_path: Path) -> None:
    torch.save(vit_state(small(None, embed_dim=384, num_heads=6)), tmp_path / "weights.pth")
    backbone = small(tmp_path / "weights.pth")
    before = vit_state(backbone)
    with pytest.raises(
        ValueError,
        match=r"cls_token is \(1, 1, 384\) there and \(1, 1, 48\) here; it looks like dinov3_small",
    ):
        load_pretrained(backbone)
    assert filled_with(backbone, before)
    torch.save(vit_state(small(None, depth=2)), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="blocks.2.gamma_1 is not there.* and 9 more"):
        load_pretrained(small(tmp_path / "weights.pth"))
    torch.save(vit_state(small(None, depth=4)), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="blocks.3.gamma_1 has no place here"):
        load_pretrained(small(tmp_path / "weights.pth"))


def test_satellite_weights_need_the_model_with_their_statistics(tmp_path: Path) -> None:
    path = tmp_path / "dinov3_vitl16_pretrain_sat493m.pth"
    state = vit_state(small(None, model_name="dinov3_large"))
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"vit_large_patch16_dinov3\.sat493m"):
        load_pretrained(small(path, model_name="dinov3_large"))
    backbone = small(path, model_name="vit_large_patch16_dinov3.sat493m")
    load_pretrained(backbone)
    assert filled_with(backbone, state)


def test_without_a_path_timms_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    state = vit_state(small(None))
    del state["rope.periods"]  # timm's files have none

    def download(repository: str, **_: Any) -> dict[str, Tensor]:
        asked.append(repository)
        return state

    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", download)
    backbone = small(None)
    exact = backbone.vit.rope.periods.clone()
    load_pretrained(backbone)
    assert asked == ["timm/vit_small_patch16_dinov3.lvd1689m"]
    assert torch.equal(backbone.vit.blocks[2].mlp.fc1.weight, state["blocks.2.mlp.fc1.weight"])
    periods = backbone.vit.rope.periods
    assert torch.equal(periods, exact.to(torch.bfloat16).float()) and not torch.equal(periods, exact)


def test_offline_stops_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="could not be downloaded") as caught:
        load_pretrained(small(None))
    message = str(caught.value)
    assert "\n" not in message
    for part in ("timm/vit_small_patch16_dinov3.lvd1689m", "weights/README.md", "pretrained=False"):
        assert part in message


def test_building_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a constructor must not download")

    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    DINOv3Backbone(pretrained=True, out_channels=(8, 8, 8))


def hgnetv2(path: Path | None, **knobs: Any) -> HGNetv2:
    return HGNetv2(name="B0", use_lab=True, checkpoint_path=path and str(path), **knobs)


def filled_as(backbone: HGNetv2, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("knobs", [{}, {"return_idx": (1, 2), "freeze_norm": True}])
def test_hgnetv2_from_a_file(tmp_path: Path, prefix: str, knobs: dict[str, Any]) -> None:
    state = timm.create_model("hgnetv2_b0").state_dict()  # with a classifier
    state = {name: torch.randn_like(value) if value.ndim else value for name, value in state.items()}
    torch.save({"model": {prefix + name: value for name, value in state.items()}}, tmp_path / "b0.pth")
    backbone = hgnetv2(tmp_path / "b0.pth", **knobs)
    load_pretrained(backbone)
    assert filled_as(backbone, state)


def test_hgnetv2_from_a_file_with_frozen_norms(tmp_path: Path) -> None:
    frozen = hgnetv2(None, freeze_norm=True).state_dict()
    torch.save(frozen, tmp_path / "b0.pth")
    backbone = hgnetv2(tmp_path / "b0.pth")
    load_pretrained(backbone)
    assert all(torch.equal(backbone.state_dict()[name], value) for name, value in frozen.items())


def test_hgnetv2_from_timms_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    state = hgnetv2(None).state_dict()

    def download(repository: str, **_: Any) -> dict[str, Tensor]:
        asked.append(repository)
        return state

    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", download)
    backbone = hgnetv2(None)
    load_pretrained(backbone)
    assert asked == ["timm/hgnetv2_b0.ssld_stage1_in22k_in1k"] and filled_as(backbone, state)


def test_hgnetv2_refuses_what_does_not_fit(tmp_path: Path) -> None:
    torch.save(HGNetv2(name="B0", use_lab=False).state_dict(), tmp_path / "b0.pth")
    with pytest.raises(ValueError, match=r"HGNetv2: .*lab\.scale is not there"):
        load_pretrained(hgnetv2(tmp_path / "b0.pth"))
    with pytest.raises(ValueError, match=r"HGNetv2\.checkpoint_path.*HGNetv2\.pretrained=False"):
        load_pretrained(hgnetv2(tmp_path / "missing.pth"))


def test_other_modules_have_no_pretrained_weights() -> None:
    with pytest.raises(TypeError, match="Linear"):
        load_pretrained(nn.Linear(1, 1))
