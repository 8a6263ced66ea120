import json
import logging
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from src.data import read_annotations
from src.data.annotations import follow_classes
from src.structures import ClassNames


def test_ids_with_gaps_become_contiguous_by_ascending_id(disk):
    disk.document["annotations"][1]["category_id"] = 5
    packed = read_annotations(disk.write())
    assert packed.classes == ClassNames(("two", "five", "nine"), (2, 5, 9))
    assert packed.labels.tolist() == [2, 1, 2]
    assert packed.image_ids.tolist() == [100, 101, 102]
    assert packed.sizes_hw.tolist() == [[50, 80]] * 3
    assert [packed.file_name(k) for k in range(3)] == ["0.png", "1.png", "2.png"]


def test_objects_in_any_order_come_back_to_their_picture(disk):
    disk.document["annotations"].reverse()
    disk.document["annotations"].append({"id": 9, "image_id": 100, "category_id": 2, "bbox": [1, 2, 3, 4]})
    packed = read_annotations(disk.write())
    boxes, labels = packed.objects(0)
    assert boxes.tolist() == [[4, 6, 14, 26], [1, 2, 4, 6]]
    assert labels.tolist() == [2, 0]
    assert packed.objects(2)[0].tolist() == [[6, 6, 16, 26]]


def test_boxes_are_clipped_and_empty_ones_counted_and_named(disk, caplog):
    disk.document["annotations"] = [
        {"id": 11, "image_id": 100, "category_id": 2, "bbox": [-5, -5, 10, 10]},
        {"id": 12, "image_id": 100, "category_id": 2, "bbox": [70, 40, 20, 20]},
        {"id": 13, "image_id": 100, "category_id": 2, "bbox": [10, 10, 0, 5]},
        {"id": 14, "image_id": 100, "category_id": 2, "bbox": [30, 30, 5, 0]},
        {"id": 15, "image_id": 100, "category_id": 2, "bbox": [90, 10, 5, 5]},
    ]
    with caplog.at_level(logging.WARNING):
        packed = read_annotations(disk.write(), drop_empty_boxes=True)
    with pytest.raises(
        ValueError,
        match="2 boxes are empty.*annotation 13.*drop_empty_boxes.*outside their picture: annotation 15",
    ):
        read_annotations(disk.write())
    assert packed.objects(0)[0].tolist() == [[0, 0, 5, 5], [70, 40, 80, 50]]
    (record,) = caplog.records
    text = record.getMessage()
    assert "2 boxes" in text and str(disk.json) in text
    assert all(f"annotation {k} " in text for k in (13, 14, 15)) and "annotation 11 " not in text


def test_crowds_are_no_targets_and_pictures_without_objects_stay(disk):
    disk.document["annotations"][0]["iscrowd"] = 1
    packed = read_annotations(disk.write())
    assert len(packed.image_ids) == 3
    assert packed.objects(0)[0].shape == (0, 4)
    assert len(packed.objects(1)[1]) == 1


def test_a_file_without_any_annotation_is_read(disk):
    disk.document["annotations"] = []
    packed = read_annotations(disk.write())
    assert packed.boxes_xyxy_px.shape == (0, 4) and packed.ends.tolist() == [0, 0, 0, 0]


def test_byte_order_mark_and_utf16_and_unicode_names_are_read(disk):
    disk.document["images"][0]["file_name"] = "größe 世界.png"
    text = json.dumps(disk.document, ensure_ascii=False)
    for encoding in ("utf-8-sig", "utf-16"):
        disk.json.write_text(text, encoding=encoding)
        assert read_annotations(disk.json).file_name(0) == "größe 世界.png"


def test_labels_follow_the_training_sets_classes(disk):
    classes = ClassNames(("zero", "two", "five", "nine"), (0, 2, 5, 9))
    packed = follow_classes(read_annotations(disk.write()), classes, disk.json)
    assert packed.classes == classes and packed.labels.tolist() == [3, 3, 3]
    with pytest.raises(ValueError, match="9 'nine'.*training set"):
        follow_classes(read_annotations(disk.json), ClassNames(("two", "five", "nein"), (2, 5, 9)), disk.json)


def test_a_spawned_worker_gets_handles_not_copies(make_disk):
    packed = read_annotations(make_disk(2).write())
    large = packed._replace(boxes_xyxy_px=torch.zeros(100_000, 4))
    assert len(bytes(ForkingPickler.dumps(large))) < 5_000
    assert large.boxes_xyxy_px.is_shared()
    assert len(pickle.dumps(packed.boxes_xyxy_px)) < 5_000


def test_cocos_training_annotations_are_held_in_less_than_60_mb(disk):
    def held(num_pictures, num_boxes):
        """Bytes, of which every worker sees the same ones (the test above)."""
        disk.document["images"] = [
            {"id": k, "file_name": f"{k:012}.jpg", "width": 640, "height": 480} for k in range(num_pictures)
        ]
        disk.document["annotations"] = [
            {"id": k, "image_id": k % num_pictures, "category_id": 9, "bbox": [k, 2, 3, 4]}
            for k in range(num_boxes)
        ]
        packed = read_annotations(disk.write())
        tensors = [part for part in packed if isinstance(part, torch.Tensor)]
        rest = [part for part in packed if not isinstance(part, torch.Tensor)]
        assert rest == [packed.classes, "", None]  # nothing that grows with the pictures or boxes
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    smallest = held(1, 1)
    a_picture, a_box = held(2, 1) - smallest, held(1, 2) - smallest
    assert held(7, 30) == smallest + 6 * a_picture + 29 * a_box
    assert smallest + 118_286 * a_picture + 859_999 * a_box < 60e6


def _without(key, kind):
    def change(document):
        for entry in document[kind]:
            entry.pop(key, None)

    return change


def _set(kind, **values):
    return lambda document: document[kind][0].update(values)


FAULTS = {
    "no images": (lambda d: d.pop("images"), "no list 'images'"),
    "no categories": (lambda d: d.pop("categories"), "no list 'categories'"),
    "no annotations": (lambda d: d.pop("annotations"), "no list 'annotations'"),
    "empty categories": (lambda d: d["categories"].clear(), "at least one category"),
    "empty images": (lambda d: d["images"].clear(), "lists no picture"),
    "no size": (
        _without("width", "images"),
        "have no 'width' and .*: picture 100, picture 101, picture 102;",
    ),
    "size of text": (_set("images", width="80"), "have no 'width' and .*: picture 100;"),
    "no picture id": (_without("id", "images"), r"integer 'id': images\[0\], images\[1\], images\[2\];"),
    "twice the same picture": (_set("images", id=101), "picture ids that stand there more than once: 101;"),
    "twice the same category": (_set("categories", id=5), "category ids that stand there more than once: 5;"),
    "category without name": (_without("name", "categories"), "a 'name'"),
    "unknown category": (_set("annotations", category_id=7), r"annotation 1 \(category_id 7\).*2, 5, 9"),
    "unhashable category": (_set("annotations", category_id=[7]), r"annotation 1 \(category_id \[7\]\)"),
    "unknown picture": (_set("annotations", image_id=7), r"annotation 1 \(image_id 7\)"),
    "not a number": (
        _set("annotations", bbox=[1, 2, float("nan"), 4]),
        r"'bbox' is not four finite numbers .*: annotation 1 \[1, 2, nan, 4\];",
    ),
    "infinite": (
        _set("annotations", bbox=[1, 2, float("inf"), 4]),
        "'bbox' is not four finite numbers .*: annotation 1 ",
    ),
    "three numbers": (
        _set("annotations", bbox=[1, 2, 3]),
        "'bbox' is not four finite numbers .*: annotation 1 ",
    ),
    "text": (_set("annotations", bbox=["1", 2, 3, 4]), "'bbox' is not four finite numbers .*: annotation 1 "),
    "no box": (
        _without("bbox", "annotations"),
        "'bbox' is not four .*: annotation 1 None, annotation 2 None, annotation 3 None",
    ),
    "annotation of text": (
        lambda d: d["annotations"].append("x"),
        r"not JSON objects: annotations\[3\] 'x';",
    ),
    "absolute name": (
        _set("images", file_name="/etc/passwd"),
        "empty, absolute .*: picture 100 '/etc/passwd';",
    ),
    "leading out": (_set("images", file_name="a/../../b.png"), "lead out of the picture"),
    "windows drive": (_set("images", file_name="C:\\b.png"), "absolute"),
    "empty name": (_set("images", file_name=""), "are empty"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_paragraph_with_file_and_place(disk, fault):
    change, expected = FAULTS[fault]
    change(disk.document)
    with pytest.raises(ValueError, match=expected) as caught:
        read_annotations(disk.write())
    assert str(disk.json) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_long_lists_of_faults_are_cut(make_disk):
    disk = make_disk(9)
    _without("height", "images")(disk.document)
    with pytest.raises(
        ValueError, match="9 pictures .*: picture 100, picture 101, .*, picture 104 and 4 more"
    ):
        read_annotations(disk.write())


def test_what_is_not_json_says_so(disk):
    with pytest.raises(ValueError, match="does not exist"):
        read_annotations(disk.json)
    text = json.dumps(disk.document)
    for content in ("", text[: len(text) // 2], "\x89PNG", "[" * 100_000):
        disk.json.write_text(content)
        with pytest.raises(ValueError, match="not valid JSON"):
            read_annotations(disk.json)
    disk.json.write_text("[]")
    with pytest.raises(ValueError, match="a JSON list, not an object"):
        read_annotations(disk.json)
