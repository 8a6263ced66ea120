import json
import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from src.data import CocoDetection, DemoSettings, build_pipeline, write_demo_dataset
from src.data.synthetic import CATEGORIES, MARKER, Scene, draw_scene
from src.data.synthetic_drawing import OUTLINES, shape_coverage

SMALL = DemoSettings(num_train=5, num_val=3, size=96, seed=1)


def _bytes(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_the_same_settings_give_the_same_bytes(tmp_path):
    assert write_demo_dataset(tmp_path / "a", SMALL) and write_demo_dataset(tmp_path / "b", SMALL)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    write_demo_dataset(tmp_path / "c", SMALL._replace(seed=2))
    assert _bytes(tmp_path / "c")["train/000001.jpg"] != _bytes(tmp_path / "a")["train/000001.jpg"]
    assert _bytes(tmp_path / "a")["train/000001.jpg"] != _bytes(tmp_path / "a")["val/000001.jpg"]


def test_more_pictures_begin_with_the_same_ones(tmp_path):
    write_demo_dataset(tmp_path / "a", SMALL)
    write_demo_dataset(tmp_path / "b", SMALL._replace(num_train=7))
    a, b = _bytes(tmp_path / "a"), _bytes(tmp_path / "b")
    assert all(a[name] == b[name] for name in a if name.endswith(".jpg"))
    assert len(b) == len(a) + 2


def test_it_loads_as_coco_with_gaps_in_the_ids(tmp_path):
    write_demo_dataset(tmp_path / "a", SMALL)
    for split, count in (("train", 5), ("val", 3)):
        ann_file = tmp_path / "a" / "annotations" / f"instances_{split}.json"
        dataset = CocoDetection(tmp_path / "a" / split, ann_file, build_pipeline([], (), (96, 96)))
        assert len(dataset) == count
        assert dataset.classes.ids == tuple(CATEGORIES) and dataset.classes.ids != tuple(range(1, 7))
        assert sum(len(dataset[k][1].labels) for k in range(count)) > 0
        document = json.loads(ann_file.read_text())
        assert document["info"] and document["licenses"]
        assert {a["image_id"] for a in document["annotations"]} <= {i["id"] for i in document["images"]}


def test_scenes_are_varied_and_boxes_hold():
    rng = np.random.default_rng(0)
    counts, sizes, categories = [], set(), set()
    for _ in range(60):
        image, shapes = draw_scene(160, rng)
        counts.append(len(shapes))
        sizes.add(image.size)
        categories |= {s.category_id for s in shapes}
        assert all(128 <= side <= 224 for side in image.size)
        for shape in shapes:
            left, top, w, h = shape.bbox
            assert 0 <= left and 0 <= top and left + w <= image.width and top + h <= image.height
            assert min(w, h) >= 10 and 0 < shape.area <= w * h
    assert min(counts) == 0 and max(counts) >= 10 and counts.count(0) <= 15
    assert len(sizes) > 50 and categories == set(CATEGORIES)


def test_boxes_are_those_of_the_pixels_that_are_seen():
    scene = Scene(np.full((120, 150, 3), 128, dtype=np.float32))
    rng = np.random.default_rng(3)
    for category_id in CATEGORIES:
        scene.try_add(category_id, 40, rng)
    painted = np.abs(scene.pixels - 128).max(-1) > 40
    shapes = scene.labelled()
    assert len(shapes) >= 3
    for left, top, w, h in (s.bbox for s in shapes):
        assert painted[top : top + h, left : left + w].mean() > 0.2
    outside = painted.copy()
    for left, top, w, h in (s.bbox for s in shapes):
        outside[max(top - 1, 0) : top + h + 1, max(left - 1, 0) : left + w + 1] = False
    assert not outside.any()


def test_no_shape_hides_another_too_far():
    scene = Scene(np.zeros((60, 60, 3), dtype=np.float32))
    rng = np.random.default_rng(0)
    added = sum(scene.try_add(2, 30, rng) for _ in range(60))
    assert 2 <= added < 60
    seen = np.bincount(scene.owner.ravel(), minlength=added + 1)[1:]
    assert all(s >= 0.55 * full for s, (_, full) in zip(seen, scene.shapes, strict=True))


@pytest.mark.parametrize("name", OUTLINES)
def test_every_outline_is_drawn_and_fits_its_patch(name):
    coverage = shape_coverage(name, np.random.default_rng(0), 30.0)
    assert coverage.shape == (32, 32) and coverage.max() == 1.0 and coverage.min() == 0.0
    assert coverage[0].max() == coverage[-1].max() == coverage[:, 0].max() == coverage[:, -1].max() == 0.0
    assert 100 < coverage.sum() < 710
    assert (coverage[15:17, 15:17].max() == 0) == (name == "ring")


def test_writing_again_replaces_only_its_own_folder(tmp_path):
    folder = tmp_path / "demo"
    assert write_demo_dataset(folder, SMALL)
    before = (folder / MARKER).stat().st_mtime_ns
    assert not write_demo_dataset(folder, SMALL)
    assert (folder / MARKER).stat().st_mtime_ns == before
    assert write_demo_dataset(folder, SMALL._replace(num_train=2))
    assert len(list((folder / "train").iterdir())) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="mine holds something that is not the demo dataset"):
        write_demo_dataset(tmp_path / "mine", SMALL)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        write_demo_dataset(tmp_path / "demo", SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"num_train": 0}, {"num_val": 0}, {"size": 20}, {"seed": -1}])
def test_settings_out_of_range_are_refused(tmp_path, change):
    with pytest.raises(ValueError, match="are allowed, got"):
        write_demo_dataset(tmp_path / "demo", SMALL._replace(**change))


@pytest.mark.parametrize(("size", "status"), [("96", 0), ("8", 2)])
def test_the_door_writes_or_refuses_with_status_2(tmp_path, repo_root, monkeypatch, capsys, size, status):
    door = repo_root / "tools" / "dataset" / "make_demo_dataset.py"
    arguments = ["--output", str(tmp_path / "demo"), "--train", "2", "--val", "1", "--size", size]
    monkeypatch.setattr(sys, "argv", [str(door), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(door), run_name="__main__")
    assert ended.value.code == status
    said = capsys.readouterr()
    assert (tmp_path / "demo" / "train" / "000002.jpg").exists() == (status == 0)
    assert "2 + 1 pictures written" in said.out if status == 0 else said.err.startswith("error: demo dataset")
