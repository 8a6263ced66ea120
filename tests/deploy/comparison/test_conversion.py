"""A converted file takes its place with its price beside it, or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from src.deploy.comparison.conversion import convert
from src.deploy.export.quantization import quantize
from src.deploy.runtimes import OnnxRuntime

onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")


def copied(source: Path) -> Any:
    def write(path: Path) -> dict[str, Any]:
        shutil.copyfile(source, path)
        return {"how": "copied"}

    return write


def test_the_file_comes_with_its_price(parted_file: Path, photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "same.onnx"
    facts, comparison = convert(
        parted_file, path, copied(parted_file), None, folder=photographs, threads=1, repeats=1
    )
    told = json.loads((path.parent / "same.onnx.json").read_text())
    assert facts == {"how": "copied"} and told["how"] == "copied"
    assert told["sha256"] == told["source_sha256"] and told["source"] == parted_file.name
    assert comparison.entries[1].agreement is not None  # on the pictures of the folder
    assert sorted(one.name for one in path.parent.iterdir()) == ["same.onnx", "same.onnx.json"]


def test_a_source_is_never_written_over(parted_file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    shutil.copyfile(parted_file, own)
    with pytest.raises(ValueError, match=r"own\.onnx: is the source; name another file with -o"):
        convert(own, tmp_path / "x" / ".." / "own.onnx", copied(parted_file), None)
    assert own.read_bytes() == parted_file.read_bytes()


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"threads": 0}])
def test_options_are_refused_before_any_work(
    parted_file: Path, tmp_path: Path, wrong: dict[str, int]
) -> None:
    def write(path: Path) -> dict[str, Any]:
        raise AssertionError(f"{path} is written too early")

    with pytest.raises(ValueError, match="allowed is 1 or more"):
        convert(parted_file, tmp_path / "new.onnx", write, None, **wrong)


def test_what_cannot_be_compared_leaves_nothing(parted_file: Path, tmp_path: Path) -> None:
    def write(path: Path) -> dict[str, Any]:
        path.write_text("no graph")
        return {}

    old = tmp_path / "new.onnx"
    old.write_text("of an earlier day")
    with pytest.raises(ValueError, match="ONNX Runtime cannot read this file"):
        convert(parted_file, old, write, None, threads=1, repeats=1)
    assert old.read_text() == "of an earlier day"
    assert [one.name for one in tmp_path.iterdir()] == ["new.onnx"]


def test_8_bits_keep_the_suffix(parted_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"q\.xml: a file in 8 bits must end in \.onnx"):
        quantize(parted_file, tmp_path / "q.xml", [])


def test_metadata_of_another_size_are_refused(parted_file: Path, tmp_path: Path) -> None:
    model = onnx.load(parted_file)
    for one in model.metadata_props:
        if one.key == "input_size_hw":
            one.value = "[32, 32]"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ValueError, match=r"metadata says \(32, 32\), its graph takes \(64, 96\)"):
        OnnxRuntime(tmp_path / "odd.onnx")
