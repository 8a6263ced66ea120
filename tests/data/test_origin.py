"""Where pictures come from; of a COCO JSON only what is needed is looked at."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.core import DatasetSettings
from src.data import Origin, count_classes, find_origin, find_origins, read_set

CATEGORIES = [{"id": 4, "name": "cat"}, {"id": 0, "name": "dög [1]"}, {"id": 9, "name": '"fox"'}]
BOTH = {"train": DatasetSettings(), "val": DatasetSettings()}


def document(name: str) -> dict[str, Any]:
    return {
        "images": [{"id": 5, "file_name": name, "width": 8, "height": 6}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 4, "bbox": [1, 1, 2, 2]}],
        "categories": CATEGORIES,
    }


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents that were parsed as a whole."""
    calls, loads = [], json.loads

    def counted(text: str | bytes, *args: Any, **options: Any) -> Any:
        if text[:1] in ("{", b"{"):
            calls.append(str(text[:40]))
        return loads(text, *args, **options)

    monkeypatch.setattr(json, "loads", counted)
    return calls


def put(root: Path, text: str | bytes, folder: str = "images", name: str = "a.png") -> Path:
    """A training set of one picture, and other folders that could be meant."""
    for other in ("train", "images", folder):
        (root / other).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(root / folder / name)
    (root / "train.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def test_coco_is_found_and_counted_without_being_read(tmp_path: Path, parses: list[str]) -> None:
    put(tmp_path, json.dumps(document("a.png")))
    (tmp_path / "val.json").write_text(json.dumps(document("a.png")))
    assert find_origins(str(tmp_path), BOTH) == {
        split: Origin(tmp_path / "images", tmp_path / f"{split}.json") for split in BOTH
    }
    assert count_classes(str(tmp_path)) == 3
    assert parses == []
    assert read_set(str(tmp_path), BOTH["train"], "train").annotations.file_names() == ["a.png"]
    assert len(parses) == 1


def test_a_loaders_own_paths_win_and_something_must_name_pictures(tmp_path: Path) -> None:
    own = DatasetSettings(img_folder="x", ann_file="y.json")
    assert find_origin(str(tmp_path), own, "train") == Origin(Path("x"), Path("y.json"))
    with pytest.raises(ValueError, match="nothing names the pictures of val: -u data="):
        find_origins(None, {"train": own, "val": DatasetSettings()})


@pytest.mark.parametrize("name", ["a.png", 'say "a", \\ b.png', "größe.png"])
@pytest.mark.parametrize("layout", ["compact", "indented", "annotations first", "in UTF-8"])
def test_file_names_tell_the_folder_however_they_are_written(tmp_path: Path, layout: str, name: str) -> None:
    content = document(name)
    if layout == "annotations first":
        content = dict(sorted(content.items()))
    indent = 2 if layout == "indented" else None
    put(tmp_path, json.dumps(content, indent=indent, ensure_ascii=layout != "in UTF-8"), name=name)
    assert find_origin(str(tmp_path), BOTH["train"], "train").img_folder == tmp_path / "images"


@pytest.mark.parametrize("text", ["", "{", '{"images": [{"file_name": "a.p', '{"file_name": "\\x"}', b"\xff"])
def test_a_damaged_json_is_left_to_those_who_read_it(tmp_path: Path, text: str | bytes) -> None:
    put(tmp_path, text)
    assert find_origin(str(tmp_path), BOTH["train"], "train").img_folder == tmp_path / "train"
    with pytest.raises(ValueError, match="annotation file .*train.json"):
        read_set(str(tmp_path), BOTH["train"], "train")


def test_a_long_list_of_categories_is_read_to_its_end(tmp_path: Path, parses: list[str]) -> None:
    many = [{"id": k, "name": f"größe {k}"} for k in range(5_000)]
    text = json.dumps({**document("a.png"), "categories": many}, ensure_ascii=False)
    assert len(text) > 1 << 16
    assert count_classes(str(put(tmp_path, text))) == 5_000
    assert parses == []


@pytest.mark.parametrize(
    "change",
    [
        {"info": {"categories": [1]}},  # not those that are meant
        {"info": {"description": 'not "categories": [], but'}, "licenses": [{"categories": []}]},
    ],
)
def test_what_else_is_called_categories_is_not_counted(
    tmp_path: Path, change: dict[str, Any], parses: list[str]
) -> None:
    put(tmp_path, json.dumps({**change, **document("a.png")}))
    assert count_classes(str(tmp_path)) == 3
    assert len(parses) == 1, "where it is not plain, all is read"


def test_a_text_that_speaks_of_categories_is_no_list_of_them(tmp_path: Path, parses: list[str]) -> None:
    info = {"description": 'its "categories": [1, 2]'}
    assert count_classes(str(put(tmp_path, json.dumps({"info": info, **document("a.png")})))) == 3
    assert parses == []
