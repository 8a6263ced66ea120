"""The door of the service: it starts as a process, answers, ends as it is told; and what it refuses."""

import runpy
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

from benchmarks.serving import compare, service
from src.deploy import Detector

TOKEN = "0123456789abcdef"
Door = Callable[..., tuple[int, str]]


@pytest.fixture
def door(repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Door:
    """Exit status and stderr of the door, run in this process."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["serve.py", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(repo_root / "tools/serve.py"), run_name="__main__")
        assert isinstance(caught.value.code, int)
        return caught.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_service_answers_as_the_detector_until_it_is_told_to_stop(
    number: signal.Signals, checkpoint: Path, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    picture = tmp_path / "picture.png"
    Image.radial_gradient("L").save(picture)
    arguments = ("--token-file", str(token), "--max-upload-mb", "0.1", "--timeout-s", "120")
    with service(checkpoint.parent, *arguments, stop=number) as running:
        with httpx.Client(base_url=running.url, timeout=120) as client:
            files = {"files": picture.read_bytes()}
            assert client.post("/predict", files=files).status_code == 401
            client.headers["Authorization"] = f"Bearer {TOKEN}"
            answer = client.post("/predict", files=files, data={"threshold": "0"})
            assert client.post("/predict", content=bytes(100_001)).status_code == 413
            facts = client.get("/model").json()
    expected = Detector.load(checkpoint, device="cpu")(picture, 0)
    assert compare(answer.content, list(expected), 0).unmatched == 0
    assert (facts["name"], facts["max_upload_bytes"]) == (checkpoint.parent.name, 100_000)
    assert [one["id"] for one in facts["classes"]] == [2, 3, 90]
    assert TOKEN not in "".join(running.log)
    assert (
        running.log[-1]
        == {
            signal.SIGTERM: "stopped by SIGTERM\n",
            signal.SIGINT: "interrupted\n",
        }[number]
    )


def test_port_that_is_taken_is_told(door: Door, checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, told = door("-m", checkpoint, "--port", port, "-d", "cpu")
    assert status == 2
    assert f"cannot listen at 127.0.0.1, port {port}" in told


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("-m", "none.onnx"), "none.onnx: no such file"),
        (("-m", "none.onnx", "--bfloat16"), "none.onnx: bfloat16 is for OpenVINO's .xml files"),
        (("-m", "none.onnx", "--token-file", "none"), "none cannot be read"),
        (("-m", "none.onnx", "--max-pixels", "90000000"), "max_pixels 90,000,000"),
        (("-m", "none.onnx", "--max-upload-mb", "inf"), "--max-upload-mb inf was asked for"),
        (("-m", "none.onnx", "--max-upload-mb", "nan"), "--max-upload-mb nan was asked for"),
    ],
)
def test_fault_of_the_user_is_told(arguments: tuple[str, ...], reason: str, door: Door) -> None:
    status, told = door(*arguments)
    assert status == 2
    assert reason in told


def test_missing_package_is_told_with_the_remedy(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    status, told = door("-m", "none.onnx")
    assert (status, "pip install -r requirements-serve.txt" in told) == (2, True)
