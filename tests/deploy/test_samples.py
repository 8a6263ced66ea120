"""Pictures to compare two forms of a detector on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src import assembly
from src.core import Experiment
from src.data import CocoDetection, Origin
from src.deploy.predictor import evaluation_pipeline
from src.deploy.samples import first_of, made_up, pictures, samples_of

SIZES_HW = [(30, 50), (64, 40), (20, 20), (90, 31)]


def test_pictures_are_in_range_and_repeat() -> None:
    made = pictures(2, (40, 64))
    assert made.shape == (2, 3, 40, 64)
    assert 0 <= made.min() < 0.2
    assert 0.8 < made.max() <= 1
    assert torch.equal(made, pictures(2, (40, 64)))
    assert not torch.equal(made[0], made[1])


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    """Four pictures, the second of which is damaged."""
    rng = np.random.default_rng(0)
    images = []
    for number, (height, width) in enumerate(SIZES_HW, 1):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        images.append({"id": number, "file_name": path.name, "height": height, "width": width})
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:200])
    path = tmp_path / "objects.json"
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "x"}]}))
    return Origin(tmp_path, path)


@pytest.mark.parametrize("keep_ratio", [False, True])
def test_the_first_that_can_be_read_as_evaluation_prepares_them(origin: Origin, keep_ratio: bool) -> None:
    samples = first_of(origin, (48, 96), keep_ratio=keep_ratio, count=2)
    dataset = CocoDetection(*origin[:2], evaluation_pipeline((48, 96), keep_ratio=keep_ratio))
    for row, index in enumerate((0, 2)):
        assert torch.equal(samples.images[row], dataset[index][0].float() / 255)
    assert samples.sizes_hw.tolist() == ([[30, 60], [20, 40]] if keep_ratio else [[30, 50], [20, 20]])
    assert samples.source == f"the first pictures of {origin.ann_file}"
    assert len(first_of(origin, (48, 96)).images) == 3


def test_a_folder_without_its_pictures_is_told(origin: Origin, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of the pictures of .*objects\.json can be read in .*absent"):
        first_of(origin._replace(img_folder=tmp_path / "absent"), (48, 96))


def test_made_up_ones_say_so() -> None:
    samples = made_up((64, 96), 4)
    assert samples.images.shape == (4, 3, 64, 96)
    assert samples.sizes_hw.tolist() == [[480, 640], [640, 320]] * 2
    assert samples.source == "made-up pictures"


def test_the_validation_set_is_taken_where_it_is(repo_root: Path, origin: Origin, tmp_path: Path) -> None:
    def experiment(folder: Path) -> Experiment:
        val = "val_dataloader.dataset"
        paths = [f"{val}.img_folder={folder}", f"{val}.ann_file={origin.ann_file}"]
        config = repo_root / "configs/dfine/dfine_dinov3_demo.yml"
        return assembly.load(config, [*paths, "eval_spatial_size=[48, 96]", "keep_ratio=True"])

    real = first_of(origin, (48, 96), keep_ratio=True)
    for found in (samples_of(experiment(tmp_path)), samples_of(experiment(tmp_path / "absent"), origin)):
        assert found.source == real.source
        assert torch.equal(found.images, real.images)
        assert torch.equal(found.sizes_hw, real.sizes_hw)
    without = samples_of(experiment(tmp_path / "absent"))
    assert (without.source, len(without.images)) == ("made-up pictures", 3)
    with pytest.raises(ValueError, match="can be read in"):
        samples_of(experiment(tmp_path), origin._replace(img_folder=tmp_path / "absent"))
