import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from src.nn.backbone.vit import ViTShape
from src.teachers import DinoV3Teacher, FeatureStore
from src.teachers.dinov3_teacher import ModelType

Build = Callable[..., DinoV3Teacher]


@pytest.mark.parametrize("size", [(64, 64), (32, 80), (33, 17), (1, 1)])
def test_tokens_of_any_size_row_by_row(small_teacher: Build, size: tuple[int, int]) -> None:
    tokens = small_teacher()(torch.rand(2, 3, *size))
    count = math.ceil(size[0] / 16) * math.ceil(size[1] / 16)
    assert {name: tuple(value.shape) for name, value in tokens.items()} == {
        "cls_token": (2, 24),
        "patch_tokens": (2, count, 24),
    }


def test_patches_go_row_by_row(small_teacher: Build) -> None:
    teacher = small_teacher()
    images = torch.full((1, 3, 32, 48), 0.5)
    before = teacher(images)["patch_tokens"]
    images[..., :16, 32:] = 1.0  # the third patch of the first row
    change = (teacher(images)["patch_tokens"] - before)[0].norm(dim=-1)
    assert int(change.argmax()) == 2


def test_the_edge_is_repeated(small_teacher: Build) -> None:
    teacher, images = small_teacher(), torch.rand(1, 3, 20, 30)
    padded = torch.nn.functional.pad(images, (0, 2, 0, 12), mode="replicate")
    assert torch.allclose(teacher(images)["patch_tokens"], teacher(padded)["patch_tokens"], atol=1e-6)


def test_it_never_learns(small_teacher: Build) -> None:
    teacher = small_teacher()
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    tokens = teacher(torch.rand(1, 3, 32, 32, requires_grad=True))
    assert not any(value.requires_grad for value in tokens.values())


@pytest.mark.parametrize("bad", [torch.rand(3, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)])
def test_other_tensors_are_refused(small_teacher: Build, bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\] as floats in \[0, 1\]"):
        small_teacher()(bad)


@pytest.mark.parametrize(
    ("knobs", "types", "strides"),
    [
        ({}, ["cls_token", "patch_tokens"], {"patch_tokens": 16}),
        ({"extract_cls_token": False}, ["patch_tokens"], {"patch_tokens": 16}),
        ({"extract_patch_tokens": False}, ["cls_token"], {}),
    ],
)
def test_each_feature_may_be_left_out(
    small_teacher: Build, knobs: dict[str, Any], types: list[str], strides: dict[str, int]
) -> None:
    teacher = small_teacher(**knobs)
    assert list(teacher(torch.rand(1, 3, 32, 32))) == teacher.get_feature_types() == types
    assert teacher.get_feature_dims() == dict.fromkeys(types, 24)
    assert teacher.get_feature_strides() == strides


def test_nothing_to_extract_is_refused(small_teacher: Build) -> None:
    with pytest.raises(ValueError, match="both False"):
        small_teacher(extract_cls_token=False, extract_patch_tokens=False)


def test_an_unknown_model_type_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="'vit_tiny'.*vit_small, vit_base, vit_large, vit_giant2"):
        DinoV3Teacher(model_type="vit_tiny")  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["cuda:99", "tpu"])
def test_a_device_that_is_not_there(small_teacher: Build, device: str) -> None:
    with pytest.raises(ValueError, match=f"DinoV3Teacher.device: '?{device}"):
        small_teacher(device=device)


@pytest.mark.parametrize("model_type", get_args(ModelType))
def test_model_types_mean_the_published_models(model_type: ModelType, caplog: Any) -> None:
    widths = {"vit_small": 384, "vit_base": 768, "vit_large": 1024, "vit_giant2": 1280}
    with caplog.at_level(logging.WARNING):
        info = DinoV3Teacher(ViTShape(depth=1), model_type=model_type).get_model_info()
    assert info["embed_dim"] == widths[model_type]
    assert ("ViT-H+/16" in caplog.text) == (model_type == "vit_giant2")


def test_what_it_says_of_itself(small_teacher: Build) -> None:
    info = small_teacher(checkpoint_path="weights/x.pth").get_model_info()
    assert info["model_name"] == "dinov3_small" and info["checkpoint_path"] == "weights/x.pth"
    assert (info["embed_dim"], info["depth"], info["num_heads"]) == (24, 2, 2)
    assert (info["patch_size"], info["num_register_tokens"]) == (16, 4)
    assert info["image_mean"] == pytest.approx((0.485, 0.456, 0.406))
    assert info["num_parameters"] == sum(p.numel() for p in small_teacher().parameters())


def test_the_hash_follows_the_weights(small_teacher: Build) -> None:
    assert small_teacher().model_hash() == small_teacher().model_hash()
    assert small_teacher().model_hash() != small_teacher(seed=1).model_hash()
    changed = small_teacher()
    changed.vit.norm.bias.data[3] += 1e-7
    assert changed.model_hash() != small_teacher().model_hash()


def test_pictures_in_any_form_give_the_same_tokens(small_teacher: Build) -> None:
    teacher = small_teacher()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 33, 50, 3), dtype=np.uint8)
    floats = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    expected = teacher(floats)
    forms = (pixels, list(pixels), [Image.fromarray(p) for p in pixels], floats, list(floats))
    for images in forms:
        tokens = teacher.extract_features(images)
        assert all(torch.equal(tokens[name], expected[name]) for name in expected)


def test_saved_features_are_read_again(small_teacher: Build, tmp_path: Path) -> None:
    teacher = small_teacher(feature_output_dir=str(tmp_path / "features"))
    images = torch.rand(3, 3, 32, 40)
    features = teacher.extract_features(images, image_ids=[5, "a.jpg", 9], save_features=True)
    teacher.extract_features(images[:2], image_ids=[9, 11], save_features=True)  # 9 is there: not touched
    store = FeatureStore.open(tmp_path / "features")
    assert set(store.shard_of) == {"5", "a.jpg", "9", "11"}
    assert store.kind == teacher.feature_kind((32, 40), "float16")
    for name, value in store.read(["a.jpg", 9]).items():
        assert torch.equal(value, features[name][1:].half())
    other = small_teacher(seed=1, feature_output_dir=str(tmp_path / "features"))
    with pytest.raises(ValueError, match="model_hash"):
        other.extract_features(images, image_ids=[1, 2, 3], save_features=True)
    with pytest.raises(ValueError, match=r"holds 9 as picture 9, which is b\.jpg now"):
        teacher.extract_features(images[:1], image_ids=[9], save_features=True, file_names=["b.jpg"])
    with pytest.raises(ValueError, match="size_hw"):
        teacher.extract_features(images[..., :16], image_ids=[1, 2, 3], save_features=True)


def test_saving_needs_names_and_a_place(small_teacher: Build, tmp_path: Path) -> None:
    images = torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match="feature_output_dir"):
        small_teacher().extract_features(images, image_ids=[1, 2], save_features=True)
    teacher = small_teacher(feature_output_dir=str(tmp_path))
    with pytest.raises(ValueError, match="image_ids"):
        teacher.extract_features(images, save_features=True)
    with pytest.raises(ValueError, match="3 image_ids for 2 pictures"):
        teacher.extract_features(images, image_ids=[1, 2, 3])
    with pytest.raises(ValueError, match="1 file_names for 2 pictures"):
        teacher.extract_features(images, image_ids=[1, 2], save_features=True, file_names=["a.jpg"])
    with pytest.raises(ValueError, match="stands twice"):
        teacher.extract_features(images, image_ids=[1, "1"], save_features=True)
    assert not list(tmp_path.glob("features-*"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_computes_in_the_type_of_its_weights(small_teacher: Build, dtype: torch.dtype) -> None:
    tokens = small_teacher().to(dtype)(torch.rand(1, 3, 32, 32))
    assert {value.dtype for value in tokens.values()} == {dtype}
