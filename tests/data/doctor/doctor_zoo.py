"""Broken datasets, one fault each: a small clean dataset, and functions that break it."""

import copy
import json
import shutil
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 60, 40
NUM_TRAIN, NUM_VAL = 4, 3
NAN = float("nan")
Boxes = dict[str, list[list[float]]]  # what is trained on, by file name, as [left, top, right, bottom]


class Dataset:
    """A COCO dataset in a folder, its JSON not yet written.

    Attributes:
        folder: Where it lies; the pictures of both splits are in `images`.
        train: The training set's document.
        val: The validation set's.
        texts: JSON texts to write in place of the documents, by split.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "images").mkdir(parents=True)
        (folder / "annotations").mkdir()
        self.train = self._document("train", NUM_TRAIN, first=1)
        self.val = self._document("val", NUM_VAL, first=1 + NUM_TRAIN)
        self.texts: dict[str, str | bytes] = {}

    def _document(self, split: str, count: int, first: int) -> dict[str, Any]:
        images, annotations = [], []
        for number in range(first, first + count):
            name = f"{split}{number}.png"
            picture(number).save(self.folder / "images" / name)
            images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
            for k in range(2):
                annotations.append(
                    {
                        "id": 2 * number + k,
                        "image_id": number,
                        "category_id": 1 + k,
                        "bbox": [2 + number, 3 + 20 * k, 30 + k, 10],
                        "area": 300 + 10 * k,
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        return {"images": images, "annotations": annotations, "categories": categories}

    def image(self, number: int = 1) -> Path:
        """The file of a training picture, 1 to 4."""
        return self.folder / "images" / self.train["images"][number - 1]["file_name"]

    def json(self, split: str) -> Path:
        return self.folder / "annotations" / f"instances_{split}.json"

    def write(self) -> Path:
        for split, document in (("train", self.train), ("val", self.val)):
            text = self.texts.get(split, json.dumps(document))
            self.json(split).write_bytes(text if isinstance(text, bytes) else text.encode())
        return self.folder


def picture(seed: int) -> Image.Image:
    """A coarse pattern of its own for each seed."""
    cells = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)


def clean_boxes(document: dict[str, Any]) -> Boxes:
    """The boxes of an unbroken document."""
    names = {i["id"]: i["file_name"] for i in document["images"]}
    found: Boxes = {name: [] for name in names.values()}
    for a in document["annotations"]:
        left, top, w, h = a["bbox"]
        found[names[a["image_id"]]].append([left, top, left + w, top + h])
    return found


class Fault(NamedTuple):
    """A way to break the dataset.

    Attributes:
        code: The finding that names it.
        breaks: Does it; gives the boxes of training pictures that differ from the clean ones.
        also: Other findings, no errors, that go with it.
    """

    code: str
    breaks: Callable[[Dataset], Boxes | None]
    also: frozenset[str] = frozenset()


ZOO: dict[str, Fault] = {}


def fault(code: str, *also: str) -> Callable[[Callable[[Dataset], Boxes | None]], None]:
    def register(breaks: Callable[[Dataset], Boxes | None]) -> None:
        name = breaks.__name__.replace("_", " ").strip()
        assert name not in ZOO, name
        ZOO[name] = Fault(code, breaks, frozenset(also))

    return register


def changed(code: str, name: str, kind: str, *also: str, **values: Any) -> None:
    """The fault that one entry of the training set has these values; `...` takes the key away."""

    def breaks(data: Dataset) -> None:
        entry = data.train[kind][0]
        for key, value in values.items():
            entry[key] = value
            if value is ...:
                del entry[key]

    breaks.__name__ = name
    fault(code, *also)(breaks)


def texted(code: str, name: str, text: Callable[[Dataset], str | bytes]) -> None:
    """The fault that the validation JSON has this text."""

    def breaks(data: Dataset) -> None:
        data.texts["val"] = text(data)

    breaks.__name__ = name
    fault(code)(breaks)


# the JSON as a text

texted("json-invalid", "a truncated JSON", lambda d: json.dumps(d.val)[:-200])
texted("json-invalid", "an empty JSON", lambda _: "")
texted("json-invalid", "a picture as JSON", lambda _: b"\x89PNG\r\n\x1a\n\xff\xfe")
texted("json-invalid", "a JSON nested without end", lambda _: "[" * 100_000)
texted(
    "json-invalid",
    "a number of 5000 digits",
    lambda d: json.dumps(d.val).replace('"id": 5', '"id": ' + "9" * 5000),
)
texted("json-duplicate-key", "annotations twice", lambda d: json.dumps(d.val)[:-1] + ', "annotations": []}')
texted(
    "json-duplicate-key",
    "a key of a box twice",
    lambda d: json.dumps(d.val).replace('"bbox"', '"bbox": [1, 2, 3, 4], "bbox"', 1),
)
texted(
    "json-other-kind",
    "a results file",
    lambda _: '[{"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]',
)
texted("json-other-kind", "a number as JSON", lambda _: "7")
texted(
    "json-other-kind",
    "a captions file",
    lambda d: json.dumps({k: v for k, v in d.val.items() if k != "categories"}),
)
texted("json-other-kind", "images as an object", lambda d: json.dumps({**d.val, "images": {"5": "val5.png"}}))
texted(
    "json-other-kind",
    "a panoptic file",
    lambda d: json.dumps(
        {**d.val, "annotations": [{"image_id": 5, "segments_info": [{"id": 1, "category_id": 1}]}]}
    ),
)


@fault("split-missing")
def no_validation_set(data: Dataset) -> None:
    data.write()
    data.json("val").unlink()
    data.write = lambda: data.folder  # type: ignore[method-assign]


@fault("dataset-unreadable")
def two_files_for_one_split(data: Dataset) -> None:
    shutil.copy(data.write() / "annotations" / "instances_train.json", data.folder / "train.json")


# sets without content


@fault("no-pictures")
def an_empty_validation_set(data: Dataset) -> None:
    data.val.update(images=[], annotations=[])


@fault("no-pictures")
def an_empty_training_set(data: Dataset) -> None:
    data.train.update(images=[], annotations=[])


@fault("no-training-boxes")
def training_without_boxes(data: Dataset) -> Boxes:
    data.train["annotations"] = []
    return {image["file_name"]: [] for image in data.train["images"]}


@fault("no-validation-boxes")
def validation_without_boxes(data: Dataset) -> None:
    data.val["annotations"] = []


@fault("no-training-boxes")
def training_of_crowds_alone(data: Dataset) -> Boxes:
    for annotation in data.train["annotations"]:
        annotation["iscrowd"] = 1
    return {image["file_name"]: [] for image in data.train["images"]}


# categories


@fault("no-categories")
def no_category(data: Dataset) -> None:
    data.train["categories"] = []


def _extra_category(code: str, name: str, category: Any, *also: str) -> None:
    def breaks(data: Dataset) -> None:
        data.train["categories"].append(category)

    breaks.__name__ = name
    fault(code, *also)(breaks)


_extra_category("category-broken", "a category of text", "bird")
_extra_category("category-broken", "a category without id", {"name": "bird"})
_extra_category("category-broken", "a category without name", {"id": 3})
_extra_category("category-broken", "a category of an empty name", {"id": 3, "name": " "})
_extra_category("category-broken", "a category id of text", {"id": "3", "name": "bird"})
_extra_category("category-broken", "a category id beyond 64 bits", {"id": 2**70, "name": "bird"})
_extra_category("category-id-repeated", "a category id twice", {"id": 2, "name": "bird"})
_extra_category(
    "category-without-boxes", "a class without boxes", {"id": 3, "name": "bird"}, "categories-missing"
)


def _named(code: str, name: str, dog: str) -> None:
    def breaks(data: Dataset) -> None:
        for document in (data.train, data.val):
            document["categories"][1]["name"] = dog

    breaks.__name__ = name
    fault(code)(breaks)


_named("category-name-repeated", "two classes of one name", "cat")
_named("category-names-alike", "names that differ by case", "Cat")
_named("category-names-alike", "names that differ by white space", " cat ")


@fault("categories-differ")
def another_name_in_validation(data: Dataset) -> None:
    data.val["categories"][1]["name"] = "wolf"


@fault("categories-differ")
def another_id_in_validation(data: Dataset) -> None:
    data.val["categories"][1]["id"] = 3
    for annotation in data.val["annotations"]:
        annotation["category_id"] = {1: 1, 2: 3}[annotation["category_id"]]


@fault("categories-differ")
def ids_from_0_in_validation(data: Dataset) -> None:
    for entry, key in [(c, "id") for c in data.val["categories"]] + [
        (a, "category_id") for a in data.val["annotations"]
    ]:
        entry[key] -= 1


@fault("categories-missing")
def a_class_that_validation_lacks(data: Dataset) -> None:
    data.val["categories"].pop()
    data.val["annotations"] = [a for a in data.val["annotations"] if a["category_id"] == 1]


# the list of pictures


@fault("picture-broken")
def a_picture_without_id(data: Dataset) -> None:
    data.train["images"].append({"file_name": "train1.png", "width": WIDTH, "height": HEIGHT})


@fault("picture-broken")
def a_picture_of_text(data: Dataset) -> None:
    data.train["images"].append("train1.png")


@fault("picture-broken")
def a_picture_id_beyond_64_bits(data: Dataset) -> None:
    data.train["images"].append({**data.train["images"][0], "id": 2**64})


@fault("picture-id-repeated")
def a_picture_id_twice(data: Dataset) -> None:
    data.train["images"][1]["id"] = 1
    data.train["annotations"] = [a for a in data.train["annotations"] if a["image_id"] != 2]


@fault("picture-listed-twice")
def a_picture_listed_twice(data: Dataset) -> None:
    data.train["images"].append({**data.train["images"][0], "id": 99})


changed("picture-size-missing", "a picture without width", "images", width=...)
changed("picture-size-missing", "a width of zero", "images", width=0)
changed("picture-size-missing", "a width of text", "images", width="60")
changed("picture-size-missing", "a width beyond all measure", "images", width=2**40)
changed("picture-name-unsafe", "an absolute name", "images", file_name="/etc/passwd")
changed("picture-name-unsafe", "a name that leads out", "images", file_name="../images/train1.png")
changed("picture-name-unsafe", "a name of a Windows drive", "images", file_name="C:\\train1.png")
changed(
    "picture-name-unsafe", "a name that leads out the Windows way", "images", file_name="a\\..\\..\\b.png"
)
changed("picture-name-unsafe", "an empty name", "images", file_name="")
changed("picture-name-unsafe", "a name with a null byte", "images", file_name="train1.png\0")
changed("picture-name-unsafe", "a name that is a number", "images", file_name=1)
changed("picture-name-unsafe", "a name that no file can have", "images", file_name="\ud800.png")
changed("picture-name-unsafe", "no name", "images", file_name=...)

# annotations

changed("annotation-picture-unknown", "an unknown picture", "annotations", image_id=77)
changed("annotation-picture-unknown", "a picture of the other set", "annotations", image_id=5)
changed("annotation-picture-unknown", "a picture id of text", "annotations", image_id="1")
changed("annotation-category-unknown", "an unknown category", "annotations", category_id=7)
changed("annotation-category-unknown", "a category counted from 0", "annotations", category_id=0)
changed("annotation-category-unknown", "a category that is a list", "annotations", category_id=[1])
changed("annotation-id-missing", "an annotation without id", "annotations", id=...)
changed("annotation-id-missing", "an annotation id of text", "annotations", id="a")
changed("annotation-id-repeated", "an annotation id twice", "annotations", id=3)
changed("annotation-id-zero", "annotation id 0", "annotations", id=0)
changed("crowd-flag-odd", "a crowd flag of text", "annotations", iscrowd="0")
changed("crowd-flag-odd", "a crowd flag that is false", "annotations", iscrowd=False)
changed("crowd-flag-odd", "a crowd flag that is null", "annotations", iscrowd=None)
changed("crowd-flag-broken", "a crowd flag of 2", "annotations", iscrowd=2)
changed("crowd-flag-broken", "a crowd flag of words", "annotations", iscrowd="maybe")
changed("crowd-flag-broken", "a crowd flag that is a list", "annotations", iscrowd=[0])
changed("area-broken", "an area that is no number", "annotations", area=NAN)
changed("area-broken", "an area below zero", "annotations", area=-1)
changed("area-broken", "an area of text", "annotations", area="big")


@fault("annotation-broken")
def an_annotation_of_text(data: Dataset) -> None:
    data.train["annotations"].append("box")


# boxes

changed("box-broken", "a box with NaN", "annotations", bbox=[NAN, 3, 30, 10])
changed("box-broken", "an infinite box", "annotations", bbox=[3, 3, float("inf"), 10])
changed("box-broken", "a box of text", "annotations", bbox=["3", "3", "30", "10"])
changed("box-broken", "a box of three numbers", "annotations", bbox=[3, 3, 30])
changed("box-broken", "a box of booleans", "annotations", bbox=[True, True, True, True])
changed("box-broken", "a box beyond all measure", "annotations", bbox=[3, 3, 1e300, 10])
changed("box-broken", "a box that is an object", "annotations", bbox={"x": 3, "y": 3, "w": 30, "h": 10})
changed("box-broken", "no box", "annotations", bbox=...)
changed(
    "box-broken",
    "a mask and no box",
    "annotations",
    bbox=...,
    segmentation={"counts": "abc", "size": [40, 60]},
)
changed("box-broken", "a broken polygon and no box", "annotations", bbox=..., segmentation=[[1, 2, 3]])
changed("box-broken", "a crowd without a box", "annotations", bbox=..., iscrowd=1)
changed(
    "box-from-polygon",
    "a polygon and no box",
    "annotations",
    bbox=...,
    segmentation=[[3, 3, 33, 3, 33, 13, 3, 13]],
)
changed(
    "box-from-polygon",
    "two polygons and no box",
    "annotations",
    bbox=None,
    segmentation=[[3, 3, 9, 3, 9, 13], [20, 5, 33, 5, 33, 8]],
)
changed("box-swapped", "a box of negative width", "annotations", bbox=[33, 3, -30, 10])
changed("box-swapped", "a box of negative height", "annotations", bbox=[3, 13, 30, -10])
changed("box-swapped", "a box from its last corner", "annotations", bbox=[33, 13, -30, -10], area=-300)
changed("box-empty", "a box without width", "annotations", bbox=[3, 3, 0, 10])
changed("box-empty", "a box without height", "annotations", bbox=[3, 3, 30, 0])
changed("box-empty", "a box too thin for its numbers", "annotations", bbox=[30, 3, 1e-12, 10])
changed("box-outside", "a box right of its picture", "annotations", bbox=[61, 3, 30, 10])
changed("box-outside", "a box above its picture", "annotations", bbox=[3, -30, 30, 10])


@fault("box-partly-outside")
def a_box_over_the_edge(data: Dataset) -> Boxes:
    data.train["annotations"][0]["bbox"] = [40, -5, 50, 20]
    return {"train1.png": [[40, 0, 60, 15], [3, 23, 34, 33]]}


@fault("box-tiny")
def a_box_thinner_than_a_pixel(data: Dataset) -> Boxes:
    data.train["annotations"][0]["bbox"] = [3, 3, 0.5, 10]
    return {"train1.png": [[3, 3, 3.5, 13], [3, 23, 34, 33]]}


@fault("box-duplicated")
def a_box_twice(data: Dataset) -> None:
    data.train["annotations"].append({**data.train["annotations"][0], "id": 99})


@fault("box-duplicated")
def a_box_three_times(data: Dataset) -> None:
    data.train["annotations"] += [{**data.train["annotations"][3], "id": i} for i in (98, 99)]


def _as_shares(data: Dataset) -> None:
    for annotation in data.train["annotations"]:
        left, top, w, h = annotation["bbox"]
        annotation["bbox"] = [left / WIDTH, top / HEIGHT, w / WIDTH, h / HEIGHT]


@fault("boxes-normalised")
def boxes_as_shares(data: Dataset) -> None:
    _as_shares(data)


@fault("boxes-normalised")
def shares_of_which_one_is_rounded_above_1(data: Dataset) -> None:
    _as_shares(data)
    data.train["annotations"][5]["bbox"] = [0.0, 0.1, 1.004, 0.5]


@fault("boxes-normalised")
def shares_and_a_tiny_picture(data: Dataset) -> None:
    _as_shares(data)
    _tiny(data, 1)


@fault("boxes-tiny")
def shares_of_tiny_pictures(data: Dataset) -> None:
    _as_shares(data)
    for number in range(1, NUM_TRAIN + 1):
        _tiny(data, number)


@fault("boxes-tiny")
def shares_and_a_box_in_pixels(data: Dataset) -> None:
    box = data.train["annotations"][5]["bbox"]
    _as_shares(data)
    data.train["annotations"][5]["bbox"] = box


def _tiny(data: Dataset, number: int) -> None:
    picture(number).resize((12, 12), Image.Resampling.NEAREST).save(data.image(number))
    data.train["images"][number - 1].update(width=12, height=12)


@fault("boxes-as-corners")
def boxes_as_corners(data: Dataset) -> None:
    for annotation in data.train["annotations"]:
        left, top, w, h = annotation["bbox"]
        annotation["bbox"] = [left + 24, top + 1, left + 24 + w - 10, top + 1 + h]


@fault("boxes-as-corners")
def many_corners_of_which_few_leave_their_pictures(data: Dataset) -> None:
    corners = [[2 + k % 5, 2 + k // 5, 32 + k % 7, 14 + k] for k in range(20)]  # 20 of them for each picture
    corners[:2] = [[30, 5, 56, 30], [31, 6, 58, 33]]
    data.train["annotations"] = [
        {"id": 1 + k, "image_id": 1 + k // 20, "category_id": 1 + k % 2, "bbox": corners[k % 20]}
        for k in range(80)
    ]


# files of pictures


@fault("picture-missing")
def a_missing_picture(data: Dataset) -> None:
    data.image().unlink()


@fault("picture-missing")
def a_folder_in_place_of_a_picture(data: Dataset) -> None:
    data.image().unlink()
    data.image().mkdir()


@fault("picture-missing")
def a_name_with_backslashes(data: Dataset) -> None:
    data.train["images"][0]["file_name"] = "images\\train1.png"


@fault("picture-name-case")
def another_case_of_a_name(data: Dataset) -> None:
    data.image().rename(data.image().with_suffix(".PNG"))


@fault("picture-name-case")
def another_form_of_an_accent(data: Dataset) -> None:
    path = data.image().with_name("é.png")
    data.image().rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    data.train["images"][0]["file_name"] = unicodedata.normalize("NFC", path.name)


@fault("picture-outside")
def a_link_out_of_the_folder(data: Dataset) -> None:
    outside = data.folder.with_name("outside.png")
    data.image().rename(outside)
    data.image().symlink_to(outside)


@fault("picture-outside")
def a_linked_subfolder_out_of_the_folder(data: Dataset) -> None:
    outside = data.folder.with_name("outside")
    outside.mkdir()
    data.image().rename(outside / "a.png")
    (data.folder / "images" / "sub").symlink_to(outside)
    data.train["images"][0]["file_name"] = "sub/a.png"


@fault("picture-unreadable")
def an_empty_file(data: Dataset) -> None:
    data.image().write_bytes(b"")


@fault("picture-unreadable")
def a_text_as_a_picture(data: Dataset) -> None:
    data.image().write_text("<html>404 Not Found</html>")


@fault("picture-unreadable")
def a_gif(data: Dataset) -> None:
    picture(1).save(data.image(), "GIF")


@fault("picture-unreadable")
def a_damaged_header(data: Dataset) -> None:
    data.image().write_bytes(data.image().read_bytes()[:12])


def _cut(data: Dataset, kind: str) -> None:
    picture(1).save(data.image(), kind)
    content = data.image().read_bytes()
    data.image().write_bytes(content[: len(content) // 2])


@fault("picture-truncated")
def a_truncated_jpeg(data: Dataset) -> None:
    _cut(data, "JPEG")


@fault("picture-truncated")
def a_truncated_png(data: Dataset) -> None:
    _cut(data, "PNG")


def _bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has this many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _bombed(name: str, width: int, height: int) -> None:
    def breaks(data: Dataset) -> None:
        data.image().write_bytes(_bomb(width, height))
        data.train["images"][0].update(width=width, height=height)

    breaks.__name__ = name
    fault("picture-oversized")(breaks)


_bombed("a decompression bomb", 50_000, 50_000)
_bombed("a picture of more pixels than are decoded", 10_000, 8_920)


@fault("picture-32-bit")
def a_picture_of_floats(data: Dataset) -> None:
    values = np.asarray(picture(1).convert("L")).astype(np.float32)
    Image.fromarray(values).save(data.image(), "TIFF")


changed("picture-size-differs", "another size than stated", "images", width=WIDTH + 10)
changed(
    "picture-size-differs",
    "width and height swapped",
    "images",
    width=HEIGHT,
    height=WIDTH,
)


def _oriented(data: Dataset, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(1).save(data.image(), "JPEG", exif=exif, quality=95)


@fault("picture-turned")
def a_picture_annotated_as_exif_turns_it(data: Dataset) -> Boxes:
    _oriented(data, 6)
    data.train["images"][0].update(width=HEIGHT, height=WIDTH)
    data.train["annotations"][1]["bbox"] = [3, 23, 31, 30]
    return {"train1.png": [[3, 3, 33, 13], [3, 23, 34, 53]]}


@fault("picture-exif-ignored")
def a_picture_annotated_as_stored(data: Dataset) -> None:
    _oriented(data, 6)


@fault("picture-exif-ignored")
def a_picture_upside_down(data: Dataset) -> None:
    _oriented(data, 3)


@fault("picture-cmyk")
def a_cmyk_picture(data: Dataset) -> None:
    picture(1).convert("CMYK").save(data.image(), "JPEG")


@fault("picture-16-bit")
def a_16_bit_picture(data: Dataset) -> None:
    values = np.asarray(picture(1).convert("L")).astype(np.uint16) * 257
    Image.fromarray(values).save(data.image())


@fault("picture-alpha")
def a_transparent_picture(data: Dataset) -> None:
    picture(1).convert("RGBA").save(data.image())


@fault("picture-alpha")
def a_palette_with_transparency(data: Dataset) -> None:
    picture(1).quantize(16).save(data.image(), transparency=3)


@fault("picture-frames")
def an_animated_picture(data: Dataset) -> None:
    picture(1).save(data.image(), save_all=True, append_images=[picture(11), picture(12)], duration=50)


@fault("picture-frames")
def a_tiff_of_pages(data: Dataset) -> None:
    picture(1).save(data.image(), "TIFF", save_all=True, append_images=[picture(11)])


# training against validation


@fault("split-same-file")
def a_file_in_both_sets(data: Dataset) -> None:
    data.val["images"][0]["file_name"] = "train1.png"


@fault("split-same-file")
def a_file_in_both_sets_by_a_link(data: Dataset) -> None:
    path = data.folder / "images" / "val5.png"
    path.unlink()
    path.symlink_to("train1.png")


@fault("split-same-bytes")
def a_copy_in_the_other_set(data: Dataset) -> None:
    shutil.copy(data.image(), data.folder / "images" / "val5.png")


@fault("split-look-alike")
def a_re_encoded_copy_in_the_other_set(data: Dataset) -> None:
    picture(1).save(data.folder / "images" / "val5.png", "JPEG", quality=60)


def broken(name: str, folder: Path) -> tuple[Dataset, Boxes]:
    """The dataset with one fault, written; and the boxes that training may see."""
    data = Dataset(folder)
    expected = clean_boxes(copy.deepcopy(data.train))
    expected.update(ZOO[name].breaks(data) or {})
    data.write()
    return data, expected
