import asyncio
import base64
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image

from src.deploy import Detector, Result
from src.serving import Limits, Service, build_app
from src.serving.guard import HEADERS
from src.structures import Detections
from tests.serving.conftest import LIMITS, Call, Means, Stuck, ask, form, picture

TOKEN = "0123456789abcdef"


def check_equal(answer: dict[str, Any], result: Result, tolerance: float = 0) -> None:
    assert (answer["height"], answer["width"]) == result.size_hw
    assert [one["label"] for one in answer["detections"]] == result.labels.tolist()
    assert [one["name"] for one in answer["detections"]] == [result.names[label] for label in result.labels]
    assert [one["id"] for one in answer["detections"]] == [
        result.classes.ids[label] for label in result.labels
    ]
    scores = torch.tensor([one["score"] for one in answer["detections"]])
    boxes = torch.tensor([one["box"] for one in answer["detections"]]).reshape(-1, 4)
    torch.testing.assert_close(scores, result.scores, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(boxes, result.boxes, rtol=tolerance, atol=tolerance)


FILES = {
    "jpeg": picture(10, "JPEG"),
    "turned": picture(
        30, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "png": picture(50),
    "webp": picture(80, "WEBP"),
    "bmp": picture(110, "BMP"),
    "tiff": picture(140, "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", FILES)
def test_answer_is_the_detectors(kind: str, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(FILES[kind])
    result = Detector(Means())(path, 0.2)[0]
    as_form = call("POST", "/predict", **form(FILES[kind]), data={"threshold": "0.2"})
    images = [base64.b64encode(FILES[kind]).decode()]
    as_json = call("POST", "/predict", json={"images": images, "threshold": 0.2})
    for answer, name in ((as_form, "0.png"), (as_json, None)):
        assert answer.status_code == 200
        (one,) = answer.json()["results"]
        assert one["name"] == name
        check_equal(one, result)
    assert 0 < len(result.scores) < 3  # the threshold has a say


def test_each_of_many_pictures_gets_its_own_answer(call: Call) -> None:
    reds = (200, 0, 90)
    answer = call("POST", "/predict", **form(*map(picture, reds))).json()["results"]
    for red, name, one in zip(reds, ("0.png", "1.png", "2.png"), answer, strict=True):
        assert one["name"] == name
        check_equal(one, Detector(Means())(Image.open(io.BytesIO(picture(red))))[0])


class Network(Means):
    """A detector whose sums may depend on how many pictures there are."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.stem = torch.nn.Conv2d(3, 32, 8, 8)
        self.head = torch.nn.Linear(32 * 4 * 6, 20 * 6)
        self.sizes: list[int] = []

    @torch.inference_mode()
    def run(self, images: torch.Tensor, sizes_hw: torch.Tensor) -> Detections:
        self.sizes.append(len(images))
        found = self.head(self.stem(images).relu().flatten(1)).sigmoid().view(-1, 20, 6)
        scores, order = found[..., 0].sort(descending=True)
        found = found.gather(1, order[..., None].expand(-1, -1, 6))
        scale = sizes_hw.flip(1).repeat(1, 2)[:, None]
        return Detections((found[..., 1] * 3).long(), found[..., 2:] * scale, scores)


def test_answers_of_requests_that_share_calls_are_those_of_pictures_alone() -> None:
    runtime = Network()
    service = Service(runtime, "tiny", LIMITS._replace(max_waiting=99), batch_size=4, max_wait_ms=50)
    app = build_app(service)
    files = [picture(red, size=(40 + red, 30)) for red in range(0, 240, 10)]

    async def all_at_once() -> Sequence[httpx.Response]:
        return await asyncio.gather(*(ask(app, "POST", "/predict", **form(one)) for one in files))

    answers = asyncio.run(all_at_once())
    assert max(runtime.sizes) == 4
    for data, answer in zip(files, answers, strict=True):
        check_equal(answer.json()["results"][0], Detector(runtime)(Image.open(io.BytesIO(data)))[0], 1e-4)
    service.close()


def test_nothing_is_written_to_disk() -> None:
    limits = LIMITS._replace(max_upload_bytes=20_000_000, max_pixels=10_000_000)
    service = Service(Means(), "means.onnx", limits, max_wait_ms=0)
    app = build_app(service)
    large = picture(9, "BMP", (1500, 1200))  # over the size at which frameworks put files on the disk
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    opened: list[object] = []
    is_on = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:  # such a hook stays: it is switched off
        if is_on and event == "open" and isinstance(arguments[2], int) and arguments[2] & writing:
            opened.append(arguments)

    sys.addaudithook(watch)
    try:
        with open(os.devnull, "r+b"):
            pass
        assert len(opened) == 1, "the hook sees what is opened"
        images = [base64.b64encode(large).decode()]
        statuses = [
            asyncio.run(ask(app, "POST", "/predict", **arguments)).status_code
            for arguments in (form(large, large), {"json": {"images": images}}, form(large[:-9000]))
        ]
    finally:
        is_on = False
        service.close()
    assert statuses == [200, 200, 400]
    assert len(opened) == 1, opened


@pytest.fixture
def stuck() -> Iterator[tuple[Stuck, Any]]:
    runtime = Stuck()
    made: list[Service] = []

    def build(limits: Limits) -> Any:
        made.append(Service(runtime, "stuck", limits, max_wait_ms=0))
        return build_app(made[0])

    yield runtime, build
    runtime.go.set()
    made[0].close()


def test_full_queue_is_told_at_once_and_empties(stuck: tuple[Stuck, Any]) -> None:
    runtime, build = stuck
    app = build(LIMITS._replace(max_waiting=4))

    async def requests() -> list[httpx.Response]:
        taken = asyncio.create_task(ask(app, "POST", "/predict", **form(*[picture(3)] * 3)))
        while (await ask(app, "GET", "/health")).json()["waiting"] < 3:
            await asyncio.sleep(0.01)
        refused = await ask(app, "POST", "/predict", **form(picture(3), picture(4)))
        runtime.go.set()
        return [await taken, refused, await ask(app, "POST", "/predict", **form(*[picture(3)] * 3))]

    taken, refused, later = asyncio.run(requests())
    assert (taken.status_code, refused.status_code, later.status_code) == (200, 503, 200)
    assert "waiting already" in refused.json()["detail"]
    assert refused.headers["retry-after"] == "1"


def test_answer_that_takes_too_long_is_given_up(stuck: tuple[Stuck, Any]) -> None:
    app = stuck[1](LIMITS._replace(timeout_s=0.5))
    answer = asyncio.run(ask(app, "POST", "/predict", **form(picture(3))))
    assert (answer.status_code, answer.json()["detail"]) == (503, "no answer within 0.5 s; try again later")
    assert asyncio.run(ask(app, "GET", "/health")).json() == {"status": "ok", "waiting": 0}


def test_fault_of_the_detector_is_told_without_its_words() -> None:
    class Broken(Means):
        def run(self, *_: object) -> Detections:
            raise OSError("a secret")

    service = Service(Broken(), "broken", LIMITS)
    answer = asyncio.run(ask(build_app(service), "POST", "/predict", **form(picture(3), picture(4))))
    assert answer.status_code == 500
    assert answer.json() == {"detail": "the detector failed; the service's log says why"}
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert 'dfine_requests_total{path="/predict",status="500"} 1.0' in service.metrics.text().decode()
    assert "dfine_request_seconds_count 1.0" in service.metrics.text().decode()
    assert service.waiting == 0
    service.close()


def test_refusal_is_told_in_words(call: Call) -> None:
    answer = call("POST", "/predict", **form(b"text"))
    assert answer.status_code == 400
    assert answer.json() == {"detail": "picture 1 is no picture: JPEG, PNG, WebP, BMP and TIFF are taken"}
    assert call("POST", "/predict", content=bytes(300_001)).status_code == 413
    assert call("GET", "/model/").status_code == 404  # and no address made of the Host that came
    assert call("GET", "/predict").json() == {"detail": "Method Not Allowed"}


def test_token_is_asked_for_where_there_is_one(service: Service) -> None:
    app = build_app(service, TOKEN)

    def status(method: str, path: str, **arguments: Any) -> int:
        return asyncio.run(ask(app, method, path, **arguments)).status_code

    for method, path in (("POST", "/predict"), ("GET", "/metrics")):
        arguments = form(picture(3)) if method == "POST" else {}
        assert status(method, path, **arguments) == 401
        assert status(method, path, params={"token": TOKEN}, **arguments) == 401
        assert status(method, path, headers={"Authorization": f"Bearer {TOKEN}"}, **arguments) == 200
    for path in ("/health", "/model", "/openapi.json", "/docs", "/"):
        assert status("GET", path) == 200
    assert asyncio.run(ask(app, "GET", "/model")).json()["token_required"] is True


def test_model_is_described(call: Call) -> None:
    assert call("GET", "/model").json() == {
        "name": "means.onnx",
        "classes": [
            {"label": 0, "id": 1, "name": "red"},
            {"label": 1, "id": 7, "name": "green"},
            {"label": 2, "id": 90, "name": "blue"},
        ],
        "input_size_hw": [32, 48],
        "threshold": 0.4,
        "max_upload_bytes": 300_000,
        "max_pixels": 50_000,
        "max_pictures": 3,
        "token_required": False,
    }


def test_every_answer_has_the_security_headers(call: Call) -> None:
    for path in ("/", "/page/app.js", "/docs", "/openapi.json", "/model", "/none", "/page/none", "/predict"):
        found = call("GET", path).headers
        assert {name: found[name] for name in HEADERS} == HEADERS


def test_page_is_served_from_memory_and_nothing_beside_it(call: Call) -> None:
    folder = Path(__file__).parents[2] / "src" / "serving" / "page"
    assert call("GET", "/").content == (folder / "index.html").read_bytes()
    for path in folder.glob("*.*"):
        assert call("GET", f"/page/{path.name}").content == path.read_bytes()
    assert call("GET", "/page/app.js").headers["content-type"].startswith("text/javascript")
    for name in ("..%2Fapp.py", "%2e%2e%2fapp.py", "%2Fetc%2Fpasswd", ".", ""):
        assert call("GET", f"/page/{name}").status_code == 404


def test_documentation_lists_every_operation_and_fetches_nothing(call: Call) -> None:
    document, page = call("GET", "/openapi.json").json(), call("GET", "/docs").text
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f"<h2>{method.upper()} {path}</h2>" in page
            assert all(f"<dt>{status}</dt>" in page for status in operation["responses"])
    for schema in document["components"]["schemas"]:
        assert f"<h3>{schema}</h3>" in page
    assert "maxItems" in unescape(page)
    assert not re.search(r"<script|style=|https?://", page)


def test_metrics_count_requests_pictures_and_batches(call: Call) -> None:
    call("POST", "/predict", **form(picture(3), picture(4)))
    call("POST", "/predict", **form(b"text"))
    call("GET", "/a/path/that/a/client/made/up")
    found = dict(line.rsplit(" ", 1) for line in call("GET", "/metrics").text.splitlines() if line[0] != "#")
    assert float(found['dfine_requests_total{path="/predict",status="200"}']) == 1
    assert float(found['dfine_requests_total{path="/predict",status="400"}']) == 1
    assert float(found['dfine_requests_total{path="other",status="404"}']) == 1
    assert float(found["dfine_request_seconds_count"]) == 2
    assert float(found["dfine_pictures_total"]) == 2
    assert float(found["dfine_batch_pictures_sum"]) == 2
    assert float(found["dfine_waiting_pictures"]) == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"batch_size": 0}, "batch size 0"),
        ({"max_wait_ms": -1}, "-1 ms"),
        ({"limits": Limits(max_pixels=90_000_000)}, "max_pixels 90,000,000"),
        ({"limits": Limits(timeout_s=float("nan"))}, "timeout_s nan"),
        ({"limits": Limits(timeout_s=float("inf"))}, "timeout_s inf"),
        ({"limits": Limits(max_upload_bytes=0)}, "max_upload_bytes 0"),
        ({"limits": Limits(max_pictures=65)}, "max_pictures 65"),
    ],
)
def test_setting_out_of_range_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Service(Means(), "means", **settings)
