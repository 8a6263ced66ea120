"""One report for a folder keeps what is known of each of its exported files."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from src.deploy.export.onnx_graph import DeployModel
from src.deploy.export.report import read_report, stage_report
from src.deploy.export.verify import export_verified
from src.deploy.metadata import ModelCard
from src.files import staged_folder


def place(folder: Path, name: str, content: bytes, **entry: Any) -> None:
    """Put a file into the folder, with its entry."""
    with staged_folder(folder) as stage:
        (stage / name).write_bytes(content)
        stage_report(stage, folder, name, entry)


def test_each_file_keeps_its_entry(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert read_report(folder) == {}
    place(folder, "a.onnx", b"one", size=1)
    place(folder, "b.onnx", b"two", size=2)
    digest = hashlib.sha256(b"one").hexdigest()
    assert read_report(folder)["a.onnx"] == {"sha256": digest, "size": 1}
    place(folder, "a.onnx", b"three", size=3)
    assert {name: one["size"] for name, one in read_report(folder).items()} == {"a.onnx": 3, "b.onnx": 2}
    (folder / "b.onnx").unlink()
    place(folder, "c.onnx", b"four", size=4)
    assert list(read_report(folder)) == ["a.onnx", "c.onnx"]


def test_a_report_of_one_file_becomes_an_entry(tmp_path: Path) -> None:
    (tmp_path / "old.onnx").write_bytes(b"old")
    (tmp_path / "export.json").write_text('{"file": "old.onnx", "sha256": "0a", "opset": 18}')
    place(tmp_path, "new.onnx", b"new")
    report = read_report(tmp_path)
    assert report["old.onnx"] == {"sha256": "0a", "opset": 18} and list(report) == ["old.onnx", "new.onnx"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a.onnx": {"sha', "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b'["a.onnx"]', "is no report of exported files"),
        (b'{"rows": {"a": 1}}', "is no report of exported files"),
    ],
)
def test_another_file_of_that_name_is_never_written_over(
    tiny: DeployModel, card: ModelCard, tmp_path: Path, content: bytes, reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "export.json").write_bytes(content)
    monkeypatch.setattr("src.deploy.export.verify.export_onnx", None)  # not even called
    with pytest.raises(ValueError, match=rf"export\.json: {reason}.*move it away"):
        export_verified(tiny, tiny, tmp_path / "best.onnx", card)
    assert (tmp_path / "export.json").read_bytes() == content
    assert [one.name for one in tmp_path.iterdir()] == ["export.json"]


def test_the_report_and_its_file_arrive_together(tmp_path: Path) -> None:
    place(tmp_path, "a.onnx", b"one", size=1)
    before = json.loads((tmp_path / "export.json").read_text())
    with pytest.raises(RuntimeError, match="stopped"), staged_folder(tmp_path) as stage:
        (stage / "b.onnx").write_bytes(b"two")
        stage_report(stage, tmp_path, "b.onnx", {})
        raise RuntimeError("stopped")
    assert json.loads((tmp_path / "export.json").read_text()) == before
