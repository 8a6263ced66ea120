"""What a run is told of its data before its first step."""

import json

import pytest
from doctor_zoo import Dataset, broken

from src.data import annotation_cache, before_training, examine_before_training
from src.data.before_training import Origin


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def looks(monkeypatch):
    """How often the data was looked at."""
    calls = []
    examine = before_training.examine

    def look(*args, **options):
        calls.append(args)
        return examine(*args, **options)

    monkeypatch.setattr(before_training, "examine", look)
    return calls


def origins(data):
    return {split: Origin(data.folder / "images", data.json(split)) for split in ("train", "val")}


def visit(data, lenient=()):
    return examine_before_training(origins(data), lenient=lenient)[0]


def test_clean_data_is_let_through_and_small_data_leaves_nothing_behind(tmp_path):
    data = Dataset(tmp_path / "data")
    data.write()
    assert visit(data).findings == ()
    assert not (tmp_path / "cache").exists()


def test_all_faults_of_both_sets_are_told_at_once(tmp_path):
    data = Dataset(tmp_path / "data")
    data.train["annotations"][0]["bbox"] = [3, 3, 0, 10]
    data.val["annotations"][0]["category_id"] = 9
    data.image(2).write_bytes(b"")
    data.write()
    with pytest.raises(ValueError, match="box-empty") as caught:
        visit(data)
    first, *table = str(caught.value).splitlines()
    assert str(data.json("train")) in first and "(and 2 more, in the table)" in first
    rows = [line.split()[:4] for line in table if line.startswith("error ")]
    assert sorted(rows) == [
        ["error", "annotation-category-unknown", "1", "val"],
        ["error", "box-empty", "1", "train"],
        ["error", "picture-unreadable", "1", "train"],
    ]


def test_empty_boxes_of_training_may_be_left_out_and_that_is_said(tmp_path):
    data, _ = broken("a box without width", tmp_path / "data")
    (finding,) = visit(data, lenient=("train",)).findings
    assert (finding.code, finding.severity) == ("box-empty", "repaired") and "left out" in finding.remedy


@pytest.mark.parametrize("name", ["a truncated jpeg", "a truncated png"])
@pytest.mark.parametrize("decoded", [0, 2_000])
def test_a_truncated_picture_stops_a_run_before_it_starts(tmp_path, monkeypatch, name, decoded):
    monkeypatch.setattr(before_training, "DECODED", decoded)
    data, _ = broken(name, tmp_path / "data")
    with pytest.raises(ValueError, match="picture-truncated"):
        visit(data)


def test_pictures_of_small_sets_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(before_training, "DECODED", 7)
    data, _ = broken("a re encoded copy in the other set", tmp_path / "data")
    (finding,) = visit(data).findings
    assert finding.code == "split-look-alike"
    monkeypatch.setattr(before_training, "DECODED", 6)
    assert visit(data).findings == ()


def test_what_was_found_without_decoding_is_not_taken_for_more(tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_cache, "SMALLEST", 0)
    data, _ = broken("a copy in the other set", tmp_path / "data")
    monkeypatch.setattr(before_training, "DECODED", 0)
    assert visit(data).findings == ()
    monkeypatch.setattr(before_training, "DECODED", 2_000)
    (finding,) = visit(data).findings
    assert finding.code == "split-same-bytes"


def test_large_data_is_looked_at_once_until_it_changes(tmp_path, monkeypatch, looks):
    monkeypatch.setattr(annotation_cache, "SMALLEST", 0)
    data, _ = broken("a box of negative width", tmp_path / "data")
    first = visit(data)
    assert [f.code for f in first.findings] == ["box-swapped"] and len(looks) == 1
    assert visit(data) == first and len(looks) == 1
    visit(data, lenient=("train",))
    assert len(looks) == 2, "another setting may find something else"
    visit(data)
    seen = len(looks)
    data.image().unlink()
    with pytest.raises(ValueError, match="picture-missing"):
        visit(data)
    with pytest.raises(ValueError, match="picture-missing"):
        visit(data)
    assert len(looks) == seen + 2, "errors are looked for again each time"


def test_a_changed_document_is_looked_at_again(tmp_path, monkeypatch, looks):
    monkeypatch.setattr(annotation_cache, "SMALLEST", 0)
    data = Dataset(tmp_path / "data")
    data.write()
    assert visit(data).findings == ()
    data.val["annotations"][0]["id"] = 0
    data.write()
    (finding,) = visit(data).findings
    assert finding.code == "annotation-id-zero" and len(looks) == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": 1}', "\0"])
def test_a_damaged_memory_is_made_anew(tmp_path, monkeypatch, looks, content):
    monkeypatch.setattr(annotation_cache, "SMALLEST", 0)
    data = Dataset(tmp_path / "data")
    data.write()
    visit(data)
    (memory,) = (tmp_path / "cache" / "dfine").glob("*.examined")
    good = json.loads(memory.read_text())
    memory.write_text(content)
    visit(data)
    assert len(looks) == 2 and json.loads(memory.read_text()) == good
    damaged = {**good, "report": {**good["report"], "findings": [{"code": "box-tiny"}]}}
    memory.write_text(json.dumps(damaged))
    visit(data)
    assert len(looks) == 3


def test_where_nothing_can_be_kept_the_data_is_looked_at_each_time(tmp_path, monkeypatch, looks):
    monkeypatch.setattr(annotation_cache, "SMALLEST", 0)
    (tmp_path / "cache").write_text("a file where the folder should be")
    data = Dataset(tmp_path / "data")
    data.write()
    for _ in range(2):
        assert visit(data).findings == ()
    assert len(looks) == 2
