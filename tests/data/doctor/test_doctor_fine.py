"""What looks odd and is not: no finding, and the same training as ever."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from doctor_zoo import HEIGHT, WIDTH, Dataset, clean_boxes, picture
from PIL import Image

from src.data import CocoDetection, build_pipeline
from src.data.doctor import diagnose


def ids_from_0(data: Dataset) -> None:
    for document in (data.train, data.val):
        for entry, key in [(c, "id") for c in document["categories"]] + [
            (a, "category_id") for a in document["annotations"]
        ]:
            entry[key] -= 1


def ids_with_gaps_and_below_0(data: Dataset) -> None:
    for document in (data.train, data.val):
        for entry, key in [(c, "id") for c in document["categories"]] + [
            (a, "category_id") for a in document["annotations"]
        ]:
            entry[key] = {1: -7, 2: 900}[entry[key]]


def categories_in_another_order(data: Dataset) -> None:
    data.val["categories"].reverse()


def picture_id_0(data: Dataset) -> None:
    data.train["images"][0]["id"] = 0
    for annotation in data.train["annotations"][:2]:
        annotation["image_id"] = 0


def the_same_picture_ids_in_both_sets(data: Dataset) -> None:
    for image in data.val["images"]:
        image["id"] -= 4
    for annotation in data.val["annotations"]:
        annotation["image_id"] -= 4


def no_area_no_crowd_flag_more_keys(data: Dataset) -> None:
    for annotation in data.train["annotations"]:
        del annotation["area"], annotation["iscrowd"]
        annotation.update(attributes={"occluded": False}, segmentation=[])
    data.train.update(info={"year": 2024}, licenses=[])


def a_background_picture(data: Dataset) -> None:
    picture(50).save(data.folder / "images" / "empty.png")
    data.train["images"].append({"id": 50, "file_name": "empty.png", "width": WIDTH, "height": HEIGHT})


def a_crowd_of_a_mask(data: Dataset) -> None:
    mask = {"counts": [0, WIDTH * HEIGHT], "size": [HEIGHT, WIDTH]}
    data.train["annotations"].append(
        {
            "id": 99,
            "image_id": 1,
            "category_id": 1,
            "bbox": [0, 0, WIDTH, HEIGHT],
            "area": 9,
            "iscrowd": 1,
            "segmentation": mask,
        }
    )


def two_classes_in_one_place(data: Dataset) -> None:
    data.train["annotations"][1]["bbox"] = list(data.train["annotations"][0]["bbox"])


def a_box_rounded_over_the_edge(data: Dataset) -> None:
    data.train["annotations"][0]["bbox"] = [-0.4, 3, WIDTH + 0.9, 10]


def a_box_of_the_whole_picture(data: Dataset) -> None:
    data.train["annotations"][0]["bbox"] = [0, 0, WIDTH, HEIGHT]


def a_subfolder(data: Dataset) -> None:
    (data.folder / "images" / "a b").mkdir()
    data.image().rename(data.folder / "images" / "a b" / "ü.png")
    data.train["images"][0]["file_name"] = "a b/ü.png"


def a_link_within_the_folder(data: Dataset) -> None:
    (data.folder / "images" / "store").mkdir()
    data.image().rename(data.folder / "images" / "store" / "1.png")
    data.image().symlink_to("store/1.png")


def a_grey_picture(data: Dataset) -> None:
    picture(1).convert("L").save(data.image())


def a_palette(data: Dataset) -> None:
    picture(1).quantize(16).save(data.image())


def a_black_and_white_picture(data: Dataset) -> None:
    picture(1).convert("1").save(data.image())


def a_jpeg_called_png(data: Dataset) -> None:
    picture(1).save(data.image(), "JPEG")


def an_upright_exif_orientation(data: Dataset) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    picture(1).save(data.image(), "JPEG", exif=exif)


def flat_pictures_in_both_sets(data: Dataset) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(data.image())
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 91, np.uint8)).save(data.folder / "images" / "val5.png")


def a_byte_order_mark(data: Dataset) -> None:
    data.texts["train"] = json.dumps(data.train).encode("utf-8-sig")


def another_encoding(data: Dataset) -> None:
    data.texts["train"] = json.dumps(data.train).encode("utf-16")


FINE = (
    ids_from_0,
    ids_with_gaps_and_below_0,
    categories_in_another_order,
    picture_id_0,
    the_same_picture_ids_in_both_sets,
    no_area_no_crowd_flag_more_keys,
    a_background_picture,
    a_crowd_of_a_mask,
    two_classes_in_one_place,
    a_box_rounded_over_the_edge,
    a_box_of_the_whole_picture,
    a_subfolder,
    a_link_within_the_folder,
    a_grey_picture,
    a_palette,
    a_black_and_white_picture,
    a_jpeg_called_png,
    an_upright_exif_orientation,
    flat_pictures_in_both_sets,
    a_byte_order_mark,
    another_encoding,
)


@pytest.mark.parametrize("change", FINE, ids=lambda change: change.__name__.replace("_", " "))
def test_what_is_fine_has_no_finding(change: Callable[[Dataset], None], tmp_path) -> None:
    data = Dataset(tmp_path / "data")
    change(data)
    assert diagnose(data.write()).findings == ()
    dataset = CocoDetection(data.folder / "images", data.json("train"), build_pipeline([], (), (32, 32)))
    names = {c["id"]: c["name"] for c in data.train["categories"]}
    files = {i["id"]: i["file_name"] for i in data.train["images"]}
    objects = [a for a in data.train["annotations"] if not a.get("iscrowd")]
    expected = clean_boxes({**data.train, "annotations": objects})
    for index in range(len(dataset)):
        _, target = dataset.load(index)
        file = dataset.annotations.file_name(index)
        inside = [[max(b[0], 0), max(b[1], 0), min(b[2], WIDTH), min(b[3], HEIGHT)] for b in expected[file]]
        assert target.boxes_xyxy_px.tolist() == inside
        found = [dataset.classes.names[label] for label in target.labels.tolist()]
        assert found == [names[a["category_id"]] for a in objects if files[a["image_id"]] == file]
