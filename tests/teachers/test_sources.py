"""Where tokens come from: a teacher that looks, and a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from src.teachers import DinoV3Teacher, FeatureKind, FeatureStore, FeatureWriter
from src.teachers.sources import OnlineTeacher, SavedTeacher

Build = Callable[..., DinoV3Teacher]


@pytest.mark.parametrize(
    ("size_hw", "scale", "grid_hw"),
    [((64, 96), 0.5, (2, 3)), ((64, 96), 1.0, (4, 6)), ((96, 64), 0.75, (4, 3)), ((32, 32), 0.1, (1, 1))],
)
def test_a_teacher_looks_at_scaled_pictures_of_any_shape(
    small_teacher: Build, size_hw: tuple[int, int], scale: float, grid_hw: tuple[int, int]
) -> None:
    teacher, images = small_teacher(), torch.rand(2, 3, *size_hw)
    source = OnlineTeacher(teacher, scale)
    maps = source(images, (1, 2))
    assert maps.shape == (2, source.dim, *grid_hw) and source.saved is None
    resized = F.interpolate(images, (16 * grid_hw[0], 16 * grid_hw[1]), mode="bilinear", antialias=True)
    tokens = teacher(resized)["patch_tokens"]
    torch.testing.assert_close(maps.flatten(2).mT, tokens)
    torch.testing.assert_close(maps[:, :, -1, 0], tokens[:, (grid_hw[0] - 1) * grid_hw[1]])


def test_the_teacher_alone_normalises(small_teacher: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, seen = small_teacher(), []
    forward = teacher.forward
    monkeypatch.setattr(teacher, "forward", lambda images: seen.append(images) or forward(images))
    images = torch.rand(1, 3, 64, 64)
    OnlineTeacher(teacher, 1.0)(images, (1,))
    assert torch.equal(seen[0], images)


def write(folder: Path, features: dict[str, Any], size_hw: tuple[int, int]) -> FeatureStore:
    dims = {name: values.shape[-1] for name, values in features.items()}
    writer = FeatureWriter(folder, FeatureKind("vit_base", "0" * 16, size_hw, "float16", dims))
    halves = {name: values.half() for name, values in features.items()}
    writer.write([7, 3, 5], ["7.png", "3.png", "5.png"], halves)
    writer.finish()
    return FeatureStore.open(folder)


def test_saved_tokens_come_in_the_order_of_the_pictures(tmp_path: Path) -> None:
    tokens = torch.arange(3 * 6 * 4).reshape(3, 6, 4).half()  # 6 patches: 2 rows of 3
    source = SavedTeacher(write(tmp_path, {"patch_tokens": tokens}, (32, 48)))
    maps = source(torch.rand(2, 3, 64, 64), (5, 7))
    assert source.dim == 4 and maps.shape == (2, 4, 2, 3)
    assert torch.equal(maps[0, :, 1, 2], tokens[2, 5]) and torch.equal(maps[1, :, 0, 1], tokens[0, 1])


def test_a_folder_without_patches_or_with_padded_ones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds cls_token and no patch tokens; run tools/extract_features"):
        SavedTeacher(write(tmp_path / "cls", {"cls_token": torch.rand(3, 4)}, (32, 48)))
    with pytest.raises(ValueError, match=r"had \(30, 48\) .*were padded; run .* multiples of 16"):
        SavedTeacher(write(tmp_path / "odd", {"patch_tokens": torch.rand(3, 6, 4)}, (30, 48)))
