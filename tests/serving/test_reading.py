import base64
import io
from concurrent.futures import CancelledError
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from PIL import Image, ImageFile

from src.deploy.predictor import Predictor
from src.serving.reading import Upload, prepare_uploads, read_request
from tests.serving.conftest import LIMITS, form, picture, scans

HEAD = b'--b\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n'
END = b"--b--\r\n"
FORM = "multipart/form-data; boundary=b"


def encoded(**arguments: Any) -> tuple[str, bytes]:
    if "files" in arguments:  # a boundary drawn at random would give a test another name in each process
        arguments["headers"] = {"Content-Type": "multipart/form-data; boundary=7d2a41c0"}
    request = httpx.Request("POST", "http://x", **arguments)
    return request.headers["content-type"], request.read()


def refusal(content_type: str, body: bytes) -> HTTPException:
    with pytest.raises(HTTPException) as caught:
        read_request(content_type, body, LIMITS)
    return caught.value


def test_form_gives_files_in_order_and_threshold() -> None:
    files = [b"one", b"\r\n--b two", bytes(range(256)) * 300]
    found = read_request(*encoded(**form(*files), data={"threshold": "0.25"}), LIMITS)
    assert [upload.data for upload in found.uploads] == files
    assert [upload.name for upload in found.uploads] == ["0.png", "1.png", "2.png"]
    assert found.threshold == 0.25


def test_json_gives_files_in_order_and_default_threshold() -> None:
    images = [base64.b64encode(one).decode() for one in (b"one", b"two")]
    assert read_request(*encoded(json={"images": images}), LIMITS) == (
        [Upload(None, b"one"), Upload(None, b"two")],
        0.4,
    )


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"../../etc/passwd", "../../etc/passwd"),  # told again, never opened
        (b"C:\\\\pictures\\\\a.png", "a.png"),
        ("grün.png".encode(), "grün.png"),
        (b"\xff.png", "\ufffd.png"),
        (b"a" * 400, "a" * 255),
        (b"", ""),
    ],
)
def test_file_name_is_only_told_again(sent: bytes, told: str) -> None:
    assert read_request(FORM, HEAD % (sent, b"x") + END, LIMITS).uploads == [Upload(told, b"x")]


IMAGE = '"aGVsbG8="'


@pytest.mark.parametrize(
    ("content_type", "body", "status", "reason"),
    [
        ("", b"", 415, "content type ''"),
        ("text/plain", b"x", 415, "'text/plain' came"),
        ("application/json", b"", 422, "body: Invalid JSON"),
        ("application/json", b"[" * 100_000, 422, "body: Invalid JSON"),
        ("application/json", b"\xff", 422, "body: Invalid JSON"),
        ("application/json", b"3", 422, "body: Input should be an object"),
        ("application/json", b"{}", 422, "images: Field required"),
        ("application/json", b'{"images": []}', 422, "images: List should have at least 1 item"),
        ("application/json", b'{"images": [3]}', 422, "images.0: Input should be a valid string"),
        ("application/json", b'{"images": ["%"]}', 422, "picture 1 is not in base64"),
        ("application/json", '{"images": ["é"]}'.encode(), 422, "picture 1 is not in base64"),
        ("application/json", b'{"images": "aGVsbG8="}', 422, "images: Input should be a valid array"),
        ("application/json", f'{{"images": [{IMAGE}], "more": 1}}'.encode(), 422, "more: Extra inputs"),
        ("application/json", f'{{"images": [{IMAGE}], "threshold": "0.4"}}'.encode(), 422, "threshold: "),
        ("application/json", f'{{"images": [{IMAGE}], "threshold": NaN}}'.encode(), 422, "threshold: "),
        ("application/json", f'{{"images": [{IMAGE}], "threshold": true}}'.encode(), 422, "threshold: "),
        ("application/json", f'{{"images": [{IMAGE}], "threshold": 2}}'.encode(), 422, "less than or equal"),
        ("application/json", f'{{"images": [{",".join([IMAGE] * 4)}]}}'.encode(), 413, "more than the 3"),
        ("application/json", f'{{"images": [{",".join([IMAGE] * 900)}]}}'.encode(), 413, "more than the 3"),
        ("multipart/form-data", b"x", 422, "no boundary"),
        (FORM, b"", 422, "ends early"),
        (FORM, b"no form", 422, "cannot be read"),
        (FORM, END, 422, "files: none came"),
        (FORM, HEAD % (b"a", b"x") + (HEAD % (b"b", b"y"))[:-4], 422, "ends early"),
        (FORM, HEAD % (b"a", b"x") * 4 + END, 413, "more than the 3"),
        (FORM, HEAD % (b"a", b"x") * 900 + END, 413, "more than the 3"),
        (FORM, (HEAD % (b"", b"x")).replace(b"; filename=\"\"", b"") + END, 422, "field 'files'"),
        (FORM, b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" + END, 422, "field ''"),
        (*encoded(files={"picture": b"x"}), 422, "field 'picture'"),
        (*encoded(files={"files": b"x"}, data={"threshold": ["0.1", "0.2"]}), 422, "field 'threshold'"),
        (*encoded(files={"files": b"x"}, data={"threshold": "high"}), 422, "threshold: "),
        (*encoded(files={"files": b"x"}, data={"threshold": "nan"}), 422, "threshold: "),
        (*encoded(files={"files": b"x"}, data={"threshold": "-0.1"}), 422, "greater than or equal"),
    ],
)  # fmt: skip
def test_request_is_refused_with_a_reason(content_type: str, body: bytes, status: int, reason: str) -> None:
    found = refusal(content_type, body)
    assert found.status_code == status
    assert reason in found.detail


def test_reason_does_not_repeat_a_long_text_of_the_clients() -> None:
    assert len(refusal("x" * 10_000, b"").detail) < 500
    assert len(refusal("application/json", b'{"images": ["x"], "%s": 1}' % (b"k" * 100_000)).detail) < 500
    assert len(refusal(*encoded(files={"f" * 4000: b"x"})).detail) < 500


def refused_picture(data: bytes, predictor: Predictor) -> tuple[int, str]:
    with pytest.raises(HTTPException) as caught:
        prepare_uploads([Upload("a", picture(3)), Upload("b", data)], predictor, LIMITS)
    return caught.value.status_code, caught.value.detail


def test_what_is_no_picture_is_refused(predictor: Predictor) -> None:
    for data in (b"", b"text", b"GIF89a" + bytes(90), picture(9, "GIF"), b"%PDF-1.7", b"<svg/>"):
        assert refused_picture(data, predictor) == (
            400,
            "picture 2 is no picture: JPEG, PNG, WebP, BMP and TIFF are taken",
        )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_half_a_picture_is_refused(kind: str, predictor: Predictor) -> None:
    data = picture(9, kind)
    status, reason = refused_picture(data[: len(data) // 2], predictor)
    assert (status, reason.startswith("picture 2 is ")) == (400, True)


def test_large_picture_is_refused_by_its_header(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Upload("a", picture(3))
    bombs = {}
    for kind, mode in (("PNG", "1"), ("JPEG", "L"), ("BMP", "1"), ("TIFF", "1"), ("WEBP", "RGB")):
        file = io.BytesIO()
        Image.new(mode, (300, 200)).save(file, kind)
        bombs[kind] = file.getvalue()
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it is decoded"))
    for bomb in bombs.values():
        with pytest.raises(HTTPException, match="50,000 pixels") as caught:
            prepare_uploads([Upload("b", bomb), small], predictor, LIMITS)
        assert caught.value.status_code == 413


def test_32_bit_picture_is_refused(predictor: Predictor) -> None:
    file = io.BytesIO()
    Image.new("F", (8, 8)).save(file, "TIFF")
    assert refused_picture(file.getvalue(), predictor) == (
        400,
        "picture 2 has 32 bits a channel; store it with 8 or 16",
    )


def test_jpeg_of_too_many_scans_is_refused(predictor: Predictor) -> None:
    reason = "picture 2 is a JPEG of more than 100 scans; store it anew"
    assert refused_picture(scans(100), predictor) == (400, reason)
    behind = picture(9, "JPEG") + scans(50) * 20  # a film, say, that is no part of the picture
    inside = picture(9, "JPEG", comment=b"\xff\xda" * 200)
    uploads = [Upload("a", data) for data in (scans(50), behind, inside)]
    assert len(prepare_uploads(uploads, predictor, LIMITS)) == 3


@pytest.mark.parametrize("side", [150, 200])
def test_pictures_together_are_bounded(side: int, predictor: Predictor) -> None:
    uploads = [Upload("a", picture(3, "JPEG", (side, 200)))] * 7
    limits = LIMITS._replace(max_pixels=40_000)
    most = 160_000 // (side * 200)
    assert len(prepare_uploads(uploads[:most], predictor, limits)) == most
    with pytest.raises(HTTPException, match=f"picture {most + 1} .* more than 160,000") as caught:
        prepare_uploads(uploads, predictor, limits)
    assert caught.value.status_code == 413


def test_decoding_ends_with_the_picture_at_which_it_was_given_up(predictor: Predictor) -> None:
    awaited = iter((True, True, False))
    with pytest.raises(CancelledError):
        prepare_uploads([Upload("a", picture(3))] * 9, predictor, LIMITS, lambda: next(awaited))


@pytest.mark.parametrize("name", [b"a", b"%d"])
def test_form_of_endless_headers_is_refused_at_its_beginning(name: bytes) -> None:
    headers = b"".join(name.replace(b"%d", b"%d" % i) + b":b\r\n" for i in range(10_000))
    body = b"--b\r\n" + headers + b"\r\nx\r\n" + END
    assert "header" in refusal(FORM, body).detail
    assert "header" in refusal(FORM, b"--b\r\nA: " + b"x" * 50_000 + b"\r\n\r\nx\r\n" + END).detail
