"""`tools/dataset/convert.py` and `split.py`: what they write, keep and refuse."""

import json
import runpy
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from PIL import Image

from src import assembly, door
from src.data.conversion import convert, refuse_existing, to_json
from src.data.formats import recognise
from src.data.splitting import PICTURE, choose, split

hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")

Door = Callable[..., tuple[int, str, str]]
W, H = 64, 48
HELD_OUT = ["09_4.jpg", "15_7.jpg", "24_12.jpg", "27_13.jpg", "13_6.jpg", "26_13.jpg"]  # by seed 0


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """30 pictures in three folders, all to train on; classes `often`, and `rare` on every fifth."""
    root = tmp_path / "mine"
    for k in range(30):
        picture = root / "images" / f"film {k % 3}" / f"{k:02d}_{k // 2}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (W, H), (k, k, k)).save(picture)
        label = root / "labels" / f"film {k % 3}" / f"{k:02d}_{k // 2}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.5 0.5 0.25 0.5\n" * (k % 4) + ("1 0.5 0.5 0.5 0.5\n" if k % 5 == 0 else ""))
    (root / "data.yaml").write_text("train: images\nnames: [often, rare]\n")
    return root


def names(document: dict[str, Any]) -> list[str]:
    return [image["file_name"] for image in document["images"]]


@pytest.fixture
def call(repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Door:
    """Runs a door of tools/dataset; gives exit status, stdout, stderr."""

    def run(tool: str, *arguments: object) -> tuple[int, str, str]:
        main = runpy.run_path(str(repo_root / "tools" / "dataset" / tool))["main"]
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        capsys.readouterr()
        return door.run(main), *capsys.readouterr()

    return run


def test_the_doors_convert_and_split(yolo: Path, tmp_path: Path, repo_root: Path, call: Door) -> None:
    target = tmp_path / "out" / "all.json"
    status, out, _ = call("convert.py", yolo, target, "--img-folder", yolo / "images")
    assert status == 0
    assert "30 pictures, 49 boxes, 2 classes from yolo" in out
    document = json.loads((tmp_path / "out" / "all.json").read_text())
    assert names(document)[0] == "film 0/00_0.jpg"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["all.json"]  # no temporary file
    status, _, error = call("convert.py", yolo, target)
    assert (status, "--force" in error) == (2, True)

    status, out, _ = call("split.py", yolo, "--val", "0.25", "--group-by", r"(\d+)\.jpg")
    assert status == 0
    assert f"-u data={yolo}" in out
    layout = recognise(yolo)
    assert (layout.format, list(layout.readers)) == ("coco", ["train", "val"])
    config = repo_root / "configs" / "dfine" / "custom" / "dfine_hgnetv2_n_custom.yml"
    assert assembly.load(config, [f"data={yolo}"]).num_classes == 2
    assert all((yolo / name).is_file() for name in names(layout.read("val").document))
    status, _, error = call("split.py", yolo)
    assert (status, "validation split already" in error) == (2, True)


@pytest.mark.parametrize(
    "name",
    [
        "annotations/instances_train.json",
        "annotations/instances_train2017.json",
        "annotations/train.json",
        "annotations/instances_default.json",
        "train.json",
        "train_annotations.json",
        "_annotations.coco.json",
        "train/_annotations.coco.json",
    ],
)
def test_what_split_writes_is_what_data_takes(yolo: Path, call: Door, name: str) -> None:
    root = yolo.parent / "coco"
    given = root / name
    given.parent.mkdir(parents=True)
    document = convert(yolo).document
    (yolo / "images").rename(root / "images")
    if name.startswith("train/"):  # Roboflow's: beside the pictures
        (root / "images").rename(given.parent / "images")
    given.write_bytes(before := to_json(document))
    status, _, error = call("split.py", root)
    assert (status, error) == (0, "")
    layout = recognise(root)
    halves = [layout.read(half) for half in ("train", "val")]
    assert sorted(n for half in halves for n in names(half.document)) == sorted(
        f"{'train/' if name.startswith('train/') else ''}{n}" for n in names(document)
    )
    assert all((half.img_folder / n).is_file() for half in halves for n in names(half.document))
    assert call("split.py", root, "--force", "--seed", "4")[0] == 0
    assert given.read_bytes() == before  # the source is nobody's to overwrite


def test_convert_refuses_what_it_cannot_read_whole(yolo: Path) -> None:
    label = yolo / "labels" / "film 1" / "01_0.txt"
    label.write_text("0 0.5 0.5\n9 0.5 0.5 0.1 0.1\n")
    with pytest.raises(ValueError, match=r"(?s)2 faults.*film 1/01_0\.txt:1.*film 1/01_0\.txt:2"):
        convert(yolo)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"images": [3], "annotations": [], "categories": [{"id": 1, "name": "a"}]}']
)
def test_neither_takes_a_json_that_is_no_dataset(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.json"):
        convert(tmp_path / "mine.json")
    with pytest.raises(ValueError, match=r"mine\.json"):
        split(tmp_path / "mine.json", val=0.5, seed=0)


def test_an_empty_box_is_converted_as_it_is(yolo: Path) -> None:
    (yolo / "labels" / "film 1" / "01_0.txt").write_text("0 0.5 0.5 0 0.1\n")
    assert [a["bbox"][2] for a in convert(yolo).document["annotations"]].count(0) == 1
    assert len(split(yolo, val=0.2, seed=0).val["images"]) > 3


def test_convert_asks_which_split(yolo: Path) -> None:
    with (yolo / "data.yaml").open("a") as file:
        file.write("val: images/film 0\n")
    with pytest.raises(ValueError, match="--split"):
        convert(yolo)
    assert len(convert(yolo, split="val").document["images"]) == 10
    with pytest.raises(ValueError, match="does not lie in"):
        convert(yolo, split="train", img_folder=yolo / "labels")


def test_refuse_existing(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    refuse_existing([tmp_path / "a"], force=True)
    refuse_existing([tmp_path / "b"], force=False)
    with pytest.raises(ValueError, match="is there already"):
        refuse_existing([tmp_path / "b", tmp_path / "a"], force=False)


boxes_in_pixels = st.tuples(
    st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 2)
)


@hypothesis.settings(max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    shares=st.lists(boxes_in_pixels, max_size=4),
    size=st.tuples(st.integers(128, 5000), st.integers(128, 300)),  # no box is thinner than a pixel
    digits=st.integers(4, 9),
)
def test_boxes_survive_the_way_through_yolo_within_the_texts_precision(
    tmp_path: Path, shares: list[tuple[float, float, float, float, int]], size: tuple[int, int], digits: int
) -> None:
    width, height = size
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "labels").mkdir(exist_ok=True)
    Image.new("L", size).save(tmp_path / "images" / "a.png")
    coco, lines = [], []
    for x, y, part_w, part_h, number in shares:
        w, h = part_w * width, part_h * height
        left, top = x * (width - w), y * (height - h)
        coco.append((number, [left, top, w, h]))
        written = ((left + w / 2) / width, (top + h / 2) / height, w / width, h / height)
        lines.append(" ".join([str(number), *(f"{value:.{digits}f}" for value in written)]))
    (tmp_path / "labels" / "a.txt").write_text("\n".join(lines))
    (tmp_path / "data.yaml").write_text("train: images\nnames: {0: a, 1: b, 2: c}\n")
    document = json.loads(to_json(convert(tmp_path).document))
    read = [(a["category_id"], a["bbox"]) for a in document["annotations"]]
    assert [number for number, _ in read] == [number for number, _ in coco]
    unit = 0.5 * 10.0**-digits * 1.001
    for (_, got), (_, expected) in zip(read, coco, strict=True):
        # an edge is off by the centre's error and half the side's; 1e-6 is what pixels are rounded to
        for k, (side, share) in enumerate(((width, 1.5), (height, 1.5), (width, 1), (height, 1))):
            assert abs(got[k] - expected[k]) <= unit * share * side + 1e-6


def test_a_split_is_the_same_for_the_same_seed_alone(yolo: Path) -> None:
    first, second = split(yolo, val=0.2, seed=0), split(yolo, val=0.2, seed=0)
    assert first == second
    assert names(split(yolo, val=0.2, seed=1).val) != names(first.val)
    # the same names on every machine, for as long as these rules stand
    assert [name.rpartition("/")[2] for name in names(first.val)] == HELD_OUT


def test_both_halves_are_the_whole_and_classes_are_shared_out(yolo: Path) -> None:
    whole = convert(yolo).document
    halves = split(yolo, val=0.2, seed=0)
    assert sorted(names(halves.train) + names(halves.val)) == names(whole)
    assert not set(names(halves.train)) & set(names(halves.val))
    assert len(halves.train["annotations"]) + len(halves.val["annotations"]) == len(whole["annotations"])
    assert halves.train["categories"] == halves.val["categories"] == whole["categories"]
    counts = Counter(a["category_id"] for a in halves.val["annotations"])
    assert 5 <= len(halves.val["images"]) <= 7  # of 30
    assert 8 <= counts[0] <= 10  # of 43
    assert 1 <= counts[1] <= 2  # of 6
    for part in (halves.train, halves.val):
        ids = {image["id"] for image in part["images"]}
        assert all(annotation["image_id"] in ids for annotation in part["annotations"])


@pytest.mark.parametrize(
    ("group_by", "key"),
    [("folder", lambda name: name.split("/")[1]), (r"_(\d+)", lambda name: name.rpartition("_")[2])],
)
def test_groups_stay_together(yolo: Path, group_by: str, key: Any) -> None:
    halves = split(yolo, val=0.3, seed=2, group_by=group_by)
    assert not {key(name) for name in names(halves.train)} & {key(name) for name in names(halves.val)}
    assert halves.val["images"]


def test_a_dataset_is_divided_anew_as_if_for_the_first_time(yolo: Path) -> None:
    first = split(yolo, val=0.2, seed=0)
    folder = yolo / "annotations"
    folder.mkdir()
    for name, part in (("train", first.train), ("val", first.val)):
        (folder / f"split_{name}.json").write_bytes(to_json(part))
    with pytest.raises(ValueError, match="--force"):
        split(yolo, val=0.2, seed=0)
    again = split(yolo, val=0.2, seed=0, again=True)
    assert names(again.val) == names(first.val)
    assert len(again.train["annotations"]) == len(first.train["annotations"])
    other = split(yolo, val=0.2, seed=5, again=True)
    assert sorted(names(other.train) + names(other.val)) == sorted(names(first.train) + names(first.val))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"val": 0.0}, "between 0 and 1"),
        ({"val": 1.0}, "between 0 and 1"),
        ({"group_by": "("}, "no regular expression"),
        ({"group_by": r"^film"}, "matches 0 of 30"),
        ({"group_by": r"^images"}, "1 group"),
    ],
)
def test_a_split_that_cannot_be(yolo: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split(yolo, **{"val": 0.2, "seed": 0, **options})


@hypothesis.given(
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=12),
    val=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_no_half_is_ever_empty(sizes: list[int], val: float, seed: int, data: st.DataObject) -> None:
    groups: dict[str, list[int]] = {}
    counts = []
    for k, size in enumerate(sizes):
        groups[f"g{k}"] = list(range(len(counts), len(counts) + size))
        counts += [
            Counter({PICTURE: 1, 3: data.draw(st.integers(0, 2)), 4: data.draw(st.integers(0, 9))})
            for _ in range(size)
        ]
    chosen = choose(groups, counts, val=val, seed=seed)
    assert 0 < len(chosen) < len(counts)
    assert all(set(members) <= chosen or not set(members) & chosen for members in groups.values())
