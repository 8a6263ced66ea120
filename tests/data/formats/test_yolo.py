"""YOLO's data.yaml and label files, as tools and people write them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.decode import decode_rgb
from src.data.formats import Source, recognise

W, H = 80, 40


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (W, H), (90, 120, 30)).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def made(root: Path, yaml: str, labels: Mapping[str, str] | None = None) -> Path:
    """A dataset with a.jpg (labelled) and b.JPG (perhaps) to train on, and c.png to validate."""
    for name in ("images/train/a.jpg", "images/train/b.JPG", "images/val/c.png"):
        picture(root / name)
    write(root / "labels/train/a.txt", "0 0.5 0.5 0.25 0.5\n")
    write(root / "labels/val/c.txt", "1 0.5 0.5 0.25 0.5\n")
    for name, text in (labels or {}).items():
        write(root / "labels" / name, text)
    write(root / "data.yaml", yaml)
    return root


PLAIN = "train: images/train\nval: images/val\nnames: [cat, big dog]\n"


def boxes(source: Source) -> list[tuple[str, int, list[float]]]:
    names = {image["id"]: image["file_name"] for image in source.document["images"]}
    return [(names[a["image_id"]], a["category_id"], a["bbox"]) for a in source.document["annotations"]]


def faults(source: Source) -> list[tuple[str, str]]:
    return [(fault.place, fault.kind) for fault in source.faults]


@pytest.mark.parametrize(
    "yaml",
    [
        PLAIN,
        "path: .\n" + PLAIN,
        "path: ../datasets/mine # where it lay on another machine\n" + PLAIN,
        "path: /content/mine\n" + PLAIN,
        "train: images\\train\nval: .\\images\\val\\\nnames: ['cat', 'big dog']\n",
        "train: ../images/train\nval: ../images/val\nnc: 2\nnames: {0: cat, 1: big dog}\n",
        "train: [images/train/a.jpg, images/train/b.JPG]\nval: lists/val.txt\nnames: [cat, big dog]\n",
        "train: lists/train.txt\nvalid: images/val\ntest:\nnames:\n  1: big dog\n  0: cat\n",
    ],
)
def test_what_a_yaml_may_say(tmp_path: Path, yaml: str) -> None:
    made(tmp_path, yaml)
    write(tmp_path / "lists/train.txt", "images/train/a.jpg\n\n./images/train/b.JPG\n")
    write(tmp_path / "lists/val.txt", "..\\images\\val\\c.png\n")
    layout = recognise(tmp_path)
    assert layout.format == "yolo"
    assert list(layout.readers) == ["train", "val"]
    assert layout.categories() == [{"id": 0, "name": "cat"}, {"id": 1, "name": "big dog"}]
    train, val = layout.read("train"), layout.read("val")
    assert boxes(train) == [("images/train/a.jpg", 0, [30, 10, 20, 20])]
    assert boxes(val) == [("images/val/c.png", 1, [30, 10, 20, 20])]
    assert [image["file_name"] for image in train.document["images"]] == [
        "images/train/a.jpg",
        "images/train/b.JPG",
    ]
    assert train.faults == val.faults == ()  # no label file means no objects


def test_several_folders_and_a_test_split(tmp_path: Path) -> None:
    made(
        tmp_path,
        "train:\n - images/val\n - images/train\nval: images/val\ntest: images/val\nnames: [cat, dog]\n",
    )
    layout = recognise(tmp_path)
    assert list(layout.readers) == ["train", "val", "test"]
    names = [image["file_name"] for image in layout.read("train").document["images"]]
    assert names == ["images/val/c.png", "images/train/a.jpg", "images/train/b.JPG"]


def test_the_yaml_named_itself_may_lie_elsewhere(tmp_path: Path) -> None:
    root = made(tmp_path / "data", PLAIN)
    file = write(tmp_path / "configs" / "mine.yaml", f"path: {root}\n" + PLAIN)
    assert recognise(file).read("train").img_folder == root


def test_labels_beside_the_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "obj" / "a b.png")
    write(tmp_path / "obj" / "a b.txt", "0 0.5 0.5 1 1")
    write(tmp_path / "data.yaml", "train: obj\nnames: [thing]\n")
    assert boxes(recognise(tmp_path).read("train")) == [("obj/a b.png", 0, [0, 0, W, H])]


def test_classes_txt_in_place_of_a_yaml(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", "1 0.5 0.5 1 1")
    write(tmp_path / "classes.txt", "cat\nbig dog\n")
    layout = recognise(tmp_path)
    assert list(layout.readers) == ["all"]
    assert layout.categories()[1] == {"id": 1, "name": "big dog"}
    assert len(layout.read("all").document["annotations"]) == 1


def test_names_are_text_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    made(tmp_path, "train: images/train\nnames: [no, 12, 1e3]\n")
    assert [c["name"] for c in recognise(tmp_path).categories()] == ["no", "12", "1e3"]


def test_a_polygon_becomes_the_box_around_it(tmp_path: Path) -> None:
    made(tmp_path, PLAIN, {"train/a.txt": "1 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n"})
    assert boxes(recognise(tmp_path).read("train")) == [("images/train/a.jpg", 1, [20, 10, 40, 20])]


def test_every_faulty_line_is_told_with_its_place_and_the_good_ones_are_read(tmp_path: Path) -> None:
    lines = [
        ("0 0.5 0.5 0.25 0.5", None),
        ("0 0.5 0.5 0.25", "line-malformed"),
        ("0 0.5 0.5 0.25 0.5 0.9", "line-malformed"),  # a confidence
        ("cat 0.5 0.5 0.25 0.5", "line-malformed"),
        ("0 0,5 0,5 0,25 0,5", "line-malformed"),
        ("0 nan 0.5 0.25 0.5", "line-malformed"),
        ("0 0.5 0.5 inf 0.5", "line-malformed"),
        ("2 0.5 0.5 0.25 0.5", "class-unknown"),
        ("-1 0.5 0.5 0.25 0.5", "class-unknown"),
        ("0.5 0.5 0.5 0.25 0.5", "class-unknown"),
        ("0 40 20 20 20", "not-normalised"),
        ("0 -0.2 0.5 0.25 0.5", "not-normalised"),
        ("", None),
        ("  1.0\t0.5  0.5 0.25 0.5 ", None),
    ]
    text = "\ufeff" + "\r\n".join(line for line, _ in lines)
    source = recognise(made(tmp_path, PLAIN, {"train/a.txt": text})).read("train")
    expected = [(f"labels/train/a.txt:{k}", kind) for k, (_, kind) in enumerate(lines, 1) if kind]
    assert faults(source) == expected
    assert [category for _, category, _ in boxes(source)] == [0, 1]
    assert source.places == ("labels/train/a.txt:1", "labels/train/a.txt:14")
    with pytest.raises(ValueError, match=r"(?s)11 faults.*a\.txt:2.*and 1 more"):
        source.require_readable()


def test_files_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    made(tmp_path, PLAIN.replace("images/train", "train.txt"), {"train/x.txt": "0 0.5 0.5 1 1"})
    write(tmp_path / "images/train/d.png", "no picture")
    (tmp_path / "labels/train/a.txt").write_bytes("0 0.5 0.5 1 1".encode("utf-16"))
    picture(tmp_path.parent / "outside.png")
    listed = [
        "images/train/a.jpg",
        "images/train/d.png",
        "images/train/gone.png",
        "../outside.png",
        "/etc/passwd",
        "a\0b",
        "x" * 300,
    ]
    write(tmp_path / "train.txt", "\n".join(listed))
    assert faults(recognise(tmp_path).read("train")) == [
        ("train.txt:3", "picture-missing"),
        ("train.txt:4", "path-outside"),
        ("train.txt:5", "path-outside"),
        ("train.txt:6", "picture-missing"),
        ("train.txt:7", "picture-missing"),
        ("labels/train/a.txt", "file-unreadable"),
        ("images/train/d.png", "picture-unreadable"),
        ("labels/train/x.txt", "label-without-picture"),
    ]


def test_links_to_folders_are_followed_within_the_dataset_alone(tmp_path: Path) -> None:
    root = made(tmp_path / "mine", PLAIN, {"train/film/f.txt": "0 0.5 0.5 1 1"})
    picture(root / "pool" / "film" / "f.png")
    picture(tmp_path / "elsewhere" / "x.png")
    train = root / "images" / "train"
    (train / "film").symlink_to(root / "pool" / "film")
    (train / "rest").symlink_to(root / "pool")  # above what is reached already
    picture(root / "pool" / "g.png")
    (train / "again").symlink_to(train)  # a circle
    (root / "pool" / "film" / "up").symlink_to(root)  # a greater one
    (train / "out").symlink_to(tmp_path / "elsewhere")
    source = recognise(root).read("train")
    names = [image["file_name"] for image in source.document["images"]]
    assert names[:2] == ["images/train/a.jpg", "images/train/b.JPG"]
    assert names[2:] == ["images/train/film/f.png", "images/train/rest/g.png"]
    assert faults(source) == [("images/train/out", "path-outside")]
    assert ("images/train/film/f.png", 0) in [box[:2] for box in boxes(source)]


def test_a_label_of_no_picture_stops_nothing(tmp_path: Path) -> None:
    source = recognise(
        made(tmp_path, PLAIN, {"train/x.txt": "0 0.5 0.5 1 1", "train/classes.txt": "cat"})
    ).read("train")
    assert faults(source) == [("labels/train/x.txt", "label-without-picture")]
    source.require_readable()


def test_two_pictures_of_one_label_file(tmp_path: Path) -> None:
    picture(made(tmp_path, PLAIN) / "images" / "train" / "a.png")
    source = recognise(tmp_path).read("train")
    assert faults(source) == [("labels/train/a.txt", "label-shared")]
    assert "a.jpg and a.png" in source.faults[0].text


def test_a_split_without_any_label_file_is_a_fault(tmp_path: Path) -> None:
    made(tmp_path, PLAIN)
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    source = recognise(tmp_path).read("train")
    assert faults(source) == [("images/train/a.jpg", "labels-missing")]
    assert "labels/train/a.txt" in source.faults[0].text


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("train: images/train\n", ["names no classes"]),
        ("names: [a]\n", ["names no pictures"]),
        ("train: images/train\nnc: 3\nnames: [a, b]\n", ["nc: 3", "names 2"]),
        ("train: images/train\nnames: {zero: a}\n", ["zero: a"]),
        ("train: images/train\nnames: [a, [b]]\n", ["names has 1"]),
        ("train: images/train\nnames: [a]\nkpt_shape: [4, 2]\n", ["key points"]),  # lines like polygons
        ("- a\n", ["mapping"]),
        ("names: [a\n", ["no YAML"]),
        ("names: [a]\ntrain: images/train\nnames: [b]\n", ["'names' stands twice", "lines 1 and 3"]),
        ("train: images/train\nnames:\n  0: a\n  0: b\n", ["'0' stands twice", "lines 3 and 4"]),
        ("train: images/train\nnames: {[a]: b}\n", ["no YAML"]),
        ("train: gone\nnames: [a]\n", ["train: gone", "data="]),
        ("train: /etc\nnames: [a]\n", ["train: /etc", "leads out"]),
        ("train: ../../\nnames: [a]\n", ["leads out"]),
        ("train: 'C:\\data\\train'\nnames: [a]\n", ["leads out"]),
    ],
)
def test_a_faulty_yaml(tmp_path: Path, yaml: str, words: Sequence[str]) -> None:
    made(tmp_path / "inner", yaml)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        recognise(tmp_path / "inner").read("train")
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("size", [(W, H), (W, W)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_lies_on_what_a_viewer_shows(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    width, height = size
    shown = np.zeros((height, width, 3), dtype=np.uint8)
    shown[5:15, 8:28] = 255  # rows, columns
    stored = Image.fromarray(shown)
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    for step in undo.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    made(tmp_path, PLAIN, {"train/a.txt": f"0 {18 / width} {10 / height} {20 / width} {10 / height}"})
    (tmp_path / "images/train/a.jpg").unlink()
    stored.save(tmp_path / "images/train/a.png", exif=exif)
    source = recognise(tmp_path).read("train")
    image = next(i for i in source.document["images"] if i["file_name"].endswith("a.png"))
    pixels = np.asarray(decode_rgb(tmp_path / image["file_name"], (image["height"], image["width"])))
    rows, columns = np.nonzero(pixels[:, :, 0])
    left, top, w, h = source.document["annotations"][0]["bbox"]
    assert [left, top, left + w, top + h] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
