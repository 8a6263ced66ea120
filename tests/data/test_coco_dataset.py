import os

import numpy as np
import pytest
import torch
from PIL import Image

from src.data import CocoDetection, build_pipeline, collate
from src.structures import ClassNames


def test_a_picture_comes_with_its_objects(disk):
    dataset = disk.dataset()
    assert len(dataset) == 3
    image, target = dataset[1]
    assert image.shape == (3, 64, 96) and image.dtype == torch.uint8
    assert target.image_id == 101 and target.size_hw == (50, 80) and target.labels.tolist() == [2]
    scale = torch.tensor([96 / 80, 64 / 50] * 2)
    torch.testing.assert_close(target.boxes_xyxy_px, torch.tensor([[5.0, 6, 15, 26]]) * scale)


def test_reading_does_not_change_the_packed_boxes(disk, recipe):
    dataset = disk.dataset(recipe)
    before = dataset.annotations.boxes_xyxy_px.clone()
    for _ in range(3):
        dataset[0][1].boxes_xyxy_px.fill_(0)
    assert torch.equal(dataset.annotations.boxes_xyxy_px, before)


def _same(a, b):
    return torch.equal(a[0], b[0]) and torch.equal(a[1].boxes_xyxy_px, b[1].boxes_xyxy_px)


def test_draws_are_a_function_of_seed_epoch_and_index(disk, recipe):
    one, other = disk.dataset(recipe, seed=4), disk.dataset(recipe, seed=4)
    other[2]
    torch.manual_seed(123)
    other[0]
    assert all(_same(one[k], other[k]) for k in range(3))
    later = disk.dataset(recipe, seed=4)
    later.set_epoch(1, strong_augmentation=True)
    assert not all(_same(one[k], later[k]) for k in range(3))
    reseeded = disk.dataset(recipe, seed=5)
    assert not all(_same(one[k], reseeded[k]) for k in range(3))
    later.set_epoch(0, strong_augmentation=True)
    assert all(_same(one[k], later[k]) for k in range(3))


def test_loading_leaves_the_global_generator_alone(disk, recipe):
    dataset = disk.dataset(recipe)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    dataset[0]
    assert torch.equal(torch.rand(3), expected)


def test_strong_augmentation_is_switched_from_outside(disk):
    dataset = disk.dataset([("RandomZoomOut", {"p": 1.0, "side_range": (3.0, 4.0)}), ("Resize", {})])
    dataset.set_epoch(0, strong_augmentation=True)
    zoomed = dataset[0][1].boxes_xyxy_px
    dataset.set_epoch(0, strong_augmentation=False)
    plain = dataset[0][1].boxes_xyxy_px
    assert (zoomed[:, 2] - zoomed[:, 0]).item() < 0.4 * (plain[:, 2] - plain[:, 0]).item()


def test_missing_folders_and_pictures_are_named(disk):
    pipeline = build_pipeline([], (), (64, 64))
    with pytest.raises(ValueError, match="picture folder does not exist: .*nowhere"):
        CocoDetection(disk.folder / "nowhere", disk.write(), pipeline)
    (disk.folder / "images" / "0.png").unlink()
    (disk.folder / "images" / "2.png").unlink()
    with pytest.raises(ValueError, match=r"json: 2 pictures .*: 0\.png \(looked for in .*images\), 2\.png;"):
        disk.dataset()


def test_pictures_may_lie_in_subfolders(disk):
    (disk.folder / "images" / "a b").mkdir()
    os.rename(disk.folder / "images" / "0.png", disk.folder / "images" / "a b" / "0.png")
    disk.document["images"][0]["file_name"] = "a b/0.png"
    assert disk.dataset()[0][1].image_id == 100
    disk.document["images"][1]["file_name"] = "c/1.png"
    with pytest.raises(ValueError, match=r"c/1\.png"):
        disk.dataset()


def test_links_out_of_the_folder_are_refused_and_within_it_followed(disk):
    images = disk.folder / "images"
    (images / "1.png").unlink()
    (images / "1.png").symlink_to("2.png")
    dataset = disk.dataset()
    assert dataset[1][1].image_id == 101
    os.rename(images / "0.png", disk.folder / "secret.png")
    (images / "0.png").symlink_to(disk.folder / "secret.png")
    with pytest.raises(
        ValueError, match=r"links that lead out of the picture folder: 0\.png -> .*secret\.png"
    ):
        disk.dataset()
    with pytest.raises(ValueError, match=r"0\.png .*link that leads out"):
        dataset[0]  # put there later


def test_a_linked_picture_folder_is_fine(disk):
    (disk.folder / "link").symlink_to(disk.folder / "images")
    dataset = CocoDetection(disk.folder / "link", disk.write(), build_pipeline([], (), (64, 64)))
    assert dataset[0][0].shape == (3, 50, 80)


def test_a_size_that_differs_from_the_json_is_refused(disk):
    disk.document["images"][0]["width"] = 81
    with pytest.raises(ValueError, match="is 80x50 .* say 81x50"):
        disk.dataset()[0]


def test_classes_can_be_the_training_sets(disk):
    dataset = disk.dataset(classes=ClassNames(("zero", "two", "five", "nine"), (0, 2, 5, 9)))
    assert dataset[0][1].labels.tolist() == [3] and dataset.classes.ids == (0, 2, 5, 9)


@pytest.mark.parametrize(("split", "pictures"), [("train", 16), ("val", 10)])
def test_real_pictures_load(shared, recipe, split, pictures):
    folder = shared / "data" / "coco_free_tiny"
    ann_file = folder / "annotations" / f"instances_{split}.json"
    dataset = CocoDetection(folder / "images", ann_file, build_pipeline(recipe, (), (96, 128)))
    assert len(dataset) == pictures
    assert len(dataset.classes.names) == 80 and dataset.classes.ids[-1] == 90
    assert dataset.classes.names[0] == "person" and dataset.classes.names[79] == "toothbrush"
    batch = collate([dataset[k] for k in range(pictures)])
    assert batch.images.shape == (pictures, 3, 96, 128)
    boxes = batch.targets.boxes_cxcywh
    assert len(boxes) == sum(batch.targets.counts) > 20
    assert ((boxes > 0) & (boxes <= 1)).all() and int(batch.targets.labels.max()) < 80


def test_real_annotations_agree_with_pycocotools(shared):
    coco = pytest.importorskip("pycocotools.coco")
    folder = shared / "data" / "coco_free_tiny"
    ann_file = folder / "annotations" / "instances_train.json"
    dataset = CocoDetection(folder / "images", ann_file, build_pipeline([], (), (96, 128)))
    reference = coco.COCO(str(ann_file))
    crowds = 0
    for index in range(len(dataset)):
        image, target = dataset.load(index)
        assert image.mode == "RGB"
        annotations = reference.loadAnns(reference.getAnnIds(imgIds=[target.image_id]))
        crowds += sum(a["iscrowd"] for a in annotations)
        kept = [a for a in annotations if not a["iscrowd"]]
        assert [dataset.classes.ids[label] for label in target.labels.tolist()] == [
            a["category_id"] for a in kept
        ]
        expected = np.array([a["bbox"] for a in kept]).reshape(-1, 4)
        expected[:, 2:] += expected[:, :2]
        np.testing.assert_allclose(target.boxes_xyxy_px.numpy(), expected, atol=0.02)
    assert crowds > 0


def test_a_grey_jpeg_is_read(disk):
    Image.open(disk.folder / "images" / "0.png").convert("L").save(disk.folder / "images" / "0.jpg")
    disk.document["images"][0]["file_name"] = "0.jpg"
    image, _ = disk.dataset()[0]
    assert torch.equal(image[0], image[2])
