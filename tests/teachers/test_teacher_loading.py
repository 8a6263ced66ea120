import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import timm.models
import torch

from src.core import ConfigError
from src.teachers import DinoV3Teacher, load_teacher, load_weights

ZEROS = ("qkv.bias", "bias_mask", "mask_token")
REPO = Path(__file__).resolve().parents[2]


def fill_module(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_fill", shared / "parity" / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def official_file(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """A file with the released file's names, shapes and zeros, and the golden outputs' weights."""
    names = json.loads((shared / "parity" / "dinov3_vits16_keys.json").read_text())
    fill = fill_module(shared).fill_array
    state = {
        name: torch.zeros(shape) if name.endswith(ZEROS) else torch.from_numpy(fill(name, tuple(shape)))
        for name, (shape, _) in names.items()
    }
    golden = np.load(shared / "parity" / "dinov3_vits16_features.npz")
    state["rope_embed.periods"] = torch.from_numpy(golden["rope_periods"])
    path = tmp_path_factory.mktemp("weights") / "official.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def official(official_file: Path) -> DinoV3Teacher:
    """The teacher of the document's YAML, with the golden outputs' weights."""
    config = official_file.parent / "dinov3.yaml"
    config.write_text(
        f"model_type: vit_small\ncheckpoint_path: {official_file}\nextract_cls_token: true\n"
        "extract_patch_tokens: true\ndevice: cpu\nfeature_output_dir: ./features\n"
    )
    return load_teacher(config)


@pytest.mark.parametrize("size", [(640, 640), (256, 704), (224, 224)])
def test_tokens_are_the_official_ones(official: DinoV3Teacher, shared: Path, size: tuple[int, int]) -> None:
    golden = np.load(shared / "parity" / "dinov3_vits16_features.npz")
    picture = fill_module(shared).image_batch(int(golden["seed"]), (1, 3, *size))
    tokens = official(torch.from_numpy(picture))
    key = f"{size[0]}x{size[1]}"
    for name, ours in (("cls", tokens["cls_token"]), ("patch_first8", tokens["patch_tokens"][..., :8])):
        np.testing.assert_allclose(ours.numpy(), golden[f"{key}_{name}"], rtol=0, atol=1e-5)


def test_every_key_of_the_yaml_arrives(official: DinoV3Teacher, official_file: Path) -> None:
    assert official.checkpoint_path == str(official_file) and official.feature_output_dir == "./features"
    assert official.get_feature_types() == ["cls_token", "patch_tokens"]


def test_overrides_lie_over_the_file(official_file: Path) -> None:
    config = official_file.parent / "dinov3.yaml"
    teacher = load_teacher(config, ["extract_cls_token=False", "feature_output_dir=null"])
    assert teacher.get_feature_types() == ["patch_tokens"] and teacher.feature_output_dir is None


def test_the_config_of_the_repository_is_read(official_file: Path) -> None:
    path = REPO / "configs" / "teachers" / "dinov3.yaml"
    teacher = load_teacher(path, ["model_type=vit_small", f"checkpoint_path={official_file}"])
    assert teacher.get_feature_types() == ["cls_token", "patch_tokens"] and teacher.feature_output_dir


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model_type: vit_huge\n", r"dinov3\.yaml:1: model_type must be vit_small \| vit_base \| vit_large"),
        ("device: cpu\nextract_cls_tokens: true\n", r"dinov3\.yaml:2: .*extract_cls_token"),
        ("extract_cls_token: 1\n", r"dinov3\.yaml:1: extract_cls_token must be true or false"),
        ("shape: {depth: 1}\n", r"dinov3\.yaml:1: .*shape"),
    ],
)
def test_faults_are_told_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "dinov3.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_teacher(tmp_path / "dinov3.yaml")


def test_weights_that_cannot_be_had(tmp_path: Path, official_file: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.pth.*weights/README\.md") as caught:
        load_weights(DinoV3Teacher(checkpoint_path=str(tmp_path / "missing.pth")))
    assert "\n" not in str(caught.value)
    base = DinoV3Teacher(model_type="vit_base", checkpoint_path=str(official_file))
    before = base.model_hash()
    with pytest.raises(ValueError, match="vit_base.*it looks like dinov3_small"):
        load_weights(base)
    assert base.model_hash() == before
    satellite = tmp_path / "dinov3_vitl16_pretrain_sat493m.pth"
    satellite.write_bytes(official_file.read_bytes())
    with pytest.raises(ValueError, match="satellite"):
        load_weights(DinoV3Teacher(checkpoint_path=str(satellite)))


def test_without_a_path_timms_hub_is_asked(monkeypatch: pytest.MonkeyPatch, official: DinoV3Teacher) -> None:
    asked: list[str] = []

    def download(repository: str, **_: Any) -> dict[str, torch.Tensor]:
        asked.append(repository)
        return {name: value for name, value in official.vit.state_dict().items() if name != "rope.periods"}

    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", download)
    teacher = DinoV3Teacher()
    load_weights(teacher)
    assert asked == ["timm/vit_small_patch16_dinov3.lvd1689m"]
    assert teacher.model_hash() == official.model_hash()
