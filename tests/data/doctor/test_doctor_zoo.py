"""Every broken dataset gets its named finding, and none is trained on with wrong boxes."""

import hashlib
from pathlib import Path

import pytest
from doctor_zoo import ZOO, Boxes, Dataset, broken, clean_boxes, picture

from src.data import CocoDetection, build_pipeline
from src.data.doctor import RULES, diagnose


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def trained_on(data: Dataset, split: str) -> Boxes:
    """What the loaders would give, picture by picture.

    Raises:
        ValueError: As a run would stop.
    """
    dataset = CocoDetection(data.folder / "images", data.json(split), build_pipeline([], (), (32, 32)))
    found: Boxes = {}
    for index in range(len(dataset)):
        image, target = dataset.load(index)
        assert (image.height, image.width) == target.size_hw
        found.setdefault(dataset.annotations.file_name(index), []).extend(target.boxes_xyxy_px.tolist())
    return found


def test_the_zoo_is_large():
    assert len(ZOO) >= 100
    assert {fault.code for fault in ZOO.values()} | {"box-empty"} <= set(RULES)


def test_a_clean_dataset_has_no_finding(tmp_path):
    data = Dataset(tmp_path / "data")
    report = diagnose(data.write())
    assert report.findings == () and "no finding" in report.table()
    assert [(s.name, s.pictures, s.boxes, s.classes) for s in report.sets] == [
        ("train", 4, 8, 2),
        ("val", 3, 6, 2),
    ]
    assert trained_on(data, "train") == clean_boxes(data.train)


@pytest.mark.parametrize("name", ZOO)
def test_a_fault_is_named_and_nothing_is_trained_on_that_is_wrong(name, tmp_path):
    code, _, also = ZOO[name]
    data, expected = broken(name, tmp_path / "data")
    before = contents(tmp_path)
    report = diagnose(data.folder)
    assert {finding.code for finding in report.findings} == {code, *also}
    (finding,) = {f.code: f for f in report.findings if f.code == code}.values()
    assert finding.severity == RULES[code].severity and finding.times >= 1
    assert 1 <= len(finding.examples) <= 5 and all(0 < len(text) <= 300 for text in finding.examples)
    assert bool(report.errors) == (finding.severity == "error")
    assert code in report.table() and code in report.as_json()
    assert contents(tmp_path) == before
    try:
        found = trained_on(data, "train")
        trained_on(data, "val")
    except ValueError:
        assert report.errors, "what a run stops at must be an error here"
    else:
        assert found == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_without_decoding_the_end_of_a_file_is_looked_for(kind, tmp_path):
    data = Dataset(tmp_path / "data")
    picture(1).save(data.image(), kind)
    content = data.image().read_bytes()
    data.write()
    for behind in (b"", b"\0" * 50, b"a film" * 1000):
        data.image().write_bytes(content + behind)
        assert diagnose(data.folder, decode=False).findings == ()
    data.image().write_bytes(content[: len(content) // 2])
    (finding,) = diagnose(data.folder, decode=False).findings
    assert finding.code == "picture-truncated"


def test_only_decoding_finds_damage_before_the_end(tmp_path):
    data = Dataset(tmp_path / "data")
    content = bytearray(data.image().read_bytes())
    content[len(content) // 2] ^= 255
    data.image().write_bytes(content)
    data.write()
    assert diagnose(data.folder, decode=False).findings == ()
    (finding,) = diagnose(data.folder).findings
    assert finding.code == "picture-truncated"
