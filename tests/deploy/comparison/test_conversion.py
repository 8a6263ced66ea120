"""A converted file takes its place with its price beside it, or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_cases import annotate

from src.data import Origin
from src.deploy.agreement import FLOAT32
from src.deploy.comparison import files
from src.deploy.comparison.conversion import Written, convert
from src.deploy.detector import Detector
from src.deploy.export.quantization import quantize
from src.deploy.export.verify import Evidence, gather_evidence
from src.deploy.runtimes import OnnxRuntime
from src.deploy.samples import made_up

onnx = pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SETTLE_S", 0.0)
    monkeypatch.setattr(files, "WARM_UP", 0)


@pytest.fixture
def origin(parted_file: Path, tmp_path: Path) -> Origin:
    return annotate(Detector.load(parted_file, num_threads=1), tmp_path / "set")


@pytest.fixture
def evidence(parted_file: Path) -> Evidence:
    """Of a file beside itself: nothing is apart, and the AP may not be."""
    runtime = OnnxRuntime(parted_file, num_threads=1)
    return gather_evidence("itself", runtime, runtime, made_up(runtime.input_hw))


def copied(source: Path, evidence: Evidence | None = None) -> Callable[[Path], Written]:
    def write(path: Path) -> Written:
        shutil.copyfile(source, path)
        return Written({"how": "copied"}, evidence)

    return write


def test_the_file_comes_with_its_price(parted_file: Path, photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "same.onnx"
    written, comparison = convert(
        parted_file, path, copied(parted_file), None, folder=photographs, threads=1, repeats=1
    )
    told = json.loads((path.parent / "export.json").read_text())["same.onnx"]
    assert written.facts == {"how": "copied"} and told["how"] == "copied"
    assert [one["path"] for one in told["files"]] == [str(parted_file), str(path)]
    assert told["sha256"] == told["source_sha256"] and told["source"] == parted_file.name
    assert comparison.entries[1].agreement is not None  # on the pictures of the folder
    assert sorted(one.name for one in path.parent.iterdir()) == ["export.json", "same.onnx"]


def test_another_ap_never_arrives(
    parted_file: Path, evidence: Evidence, origin: Origin, tmp_path: Path
) -> None:
    proto = onnx.load(parted_file)
    for one in proto.graph.initializer:
        if one.name == "model.decoder.head.bias":
            shifted = onnx.numpy_helper.to_array(one).copy()
            shifted[3:5] += 0.8  # boxes
            one.CopyFrom(onnx.numpy_helper.from_array(shifted, one.name))
    onnx.save(proto, tmp_path / "other.onnx")
    path, write = tmp_path / "out" / "shifted.onnx", copied(tmp_path / "other.onnx", evidence)
    with pytest.raises(
        ValueError, match=r"shifted\.onnx and parted\.onnx do not agree: AP 0\.\d+ and 0\.\d+ on .*0\.001"
    ):
        convert(parted_file, path, write, origin, threads=1, repeats=1)
    assert not path.parent.exists()
    convert(parted_file, path, copied(tmp_path / "other.onnx"), origin, threads=1, repeats=1)
    report = json.loads((path.parent / "export.json").read_text())["shifted.onnx"]
    before, after = (one["metrics"]["AP"] for one in report["files"])
    assert report["verified"] is None and before - after > FLOAT32.ap  # told, where rounding may cost it


def test_the_same_ap_stands_in_the_report(
    parted_file: Path, evidence: Evidence, origin: Origin, tmp_path: Path
) -> None:
    path, write = tmp_path / "out" / "parted.onnx", copied(parted_file, evidence)
    _, comparison = convert(parted_file, path, write, origin, threads=1, repeats=1)
    assert [one.label for one in comparison.entries] == [str(parted_file), str(path)]
    report = json.loads((path.parent / "export.json").read_text())["parted.onnx"]
    assert report["verified"] == json.loads(json.dumps(evidence.to_dict()))
    before, after = (one["metrics"]["AP"] for one in report["files"])
    assert before == after > 0.01


def test_a_config_needs_its_checkpoint(parted_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.yml: is the config of no checkpoint; name that with -r"):
        convert(parted_file, tmp_path / "x.onnx", copied(parted_file), None, config=Path("x.yml"))


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
    def write(path: Path) -> Written:
        raise AssertionError(f"{path} is written too early")

    with pytest.raises(ValueError, match="allowed is 1 or more"):
        convert(parted_file, tmp_path / "new.onnx", write, None, **wrong)


def test_what_cannot_be_compared_leaves_nothing(parted_file: Path, tmp_path: Path) -> None:
    def write(path: Path) -> Written:
        path.write_text("no graph")
        return Written({}, None)

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
