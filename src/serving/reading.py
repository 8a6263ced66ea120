"""A body to the pictures and the threshold that it asks for; all of it in memory."""

import base64
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import NamedTuple

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..data import PictureError, decode_bytes
from ..data.decode import MAX_SCANS
from ..deploy.detector import THRESHOLD
from ..deploy.predictor import Predictor, Prepared
from .limits import LARGEST_PICTURES, MAX_TEXT, Limits
from .schema import FormThreshold, JsonRequest, problem, reason_of

MAX_NAME = 255  # characters
REASONS = {
    "picture-unreadable": (400, "is no picture: JPEG, PNG, WebP, BMP and TIFF are taken"),
    "picture-truncated": (400, "is truncated or damaged"),
    "picture-scans": (400, f"is a JPEG of more than {MAX_SCANS} scans; store it anew"),
    "picture-32-bit": (400, "has 32 bits a channel; store it with 8 or 16"),
}


class Upload(NamedTuple):
    """A picture's file; `name` is what the client calls it, good for nothing but to be told again."""

    name: str | None
    data: bytes


class Asked(NamedTuple):
    """What a request asks for."""

    uploads: list[Upload]
    threshold: float


class Decoded(NamedTuple):
    """The same without its files: the name of each picture, and the pictures."""

    names: list[str | None]
    pictures: list[Prepared]
    threshold: float


class Decoding:
    """A body that a thread makes pictures of, for as long as somebody waits for them."""

    def __init__(self, content_type: str, body: bytes) -> None:
        self._content_type = content_type
        self._body = body
        self._is_awaited = True

    def give_up(self) -> None:
        """Drop the body; a thread that has begun ends with the picture that it is at."""
        self._is_awaited, self._body = False, b""

    def run(self, predictor: Predictor, limits: Limits) -> Decoded:
        """All that comes before the detector.

        Raises:
            HTTPException: 400, 413, 415 or 422.
            CancelledError: It was given up.
        """
        uploads, threshold = read_request(self._content_type, self._body, limits)
        self._body = b""
        pictures = prepare_uploads(uploads, predictor, limits, lambda: self._is_awaited)
        return Decoded([upload.name for upload in uploads], pictures, threshold)


def read_request(content_type: str, body: bytes, limits: Limits) -> Asked:
    """The pictures of a form or of JSON, not decoded yet, at least one.

    Raises:
        HTTPException: 413, 415 or 422.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"application/json":
        return _of_json(body, limits)
    if kind == b"multipart/form-data":
        return _of_form(options.get(b"boundary", b""), body, limits)
    raise problem(
        415,
        f"content type {content_type[:MAX_TEXT]!r} came, multipart/form-data and application/json are taken",
    )


def _of_json(body: bytes, limits: Limits) -> Asked:
    too_many = problem(413, f"more than the {limits.max_pictures} pictures that are taken at once")
    if body.count(b",") > limits.max_pictures + 1:  # there is none in base64: each is one more value to parse
        raise too_many
    try:
        asked = JsonRequest.model_validate_json(body)
    except ValidationError as error:
        raise problem(422, reason_of(error)) from error
    if len(asked.images) > limits.max_pictures:
        raise too_many
    uploads = []
    for place, text in enumerate(asked.images, 1):
        try:
            uploads.append(Upload(None, base64.b64decode(text, validate=True)))
        except ValueError as error:
            raise problem(422, f"picture {place} is not in base64") from error
    return Asked(uploads, asked.threshold)


class _Part(NamedTuple):
    """A field of a form."""

    headers: dict[str, bytearray]
    data: bytearray


class _Form:
    """What the parser tells while it goes through a form."""

    def __init__(self, max_parts: int) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._max_parts = max_parts
        self._name = bytearray()
        self._value = bytearray()

    def parse(self, boundary: bytes, body: bytes) -> None:
        """Fill `parts`.

        Raises:
            HTTPException: It is no form, or has too many parts.
        """
        try:
            MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_part_data": lambda data, start, end: self.parts[-1].data.extend(data[start:end]),
                    "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_end": self._end,
                },
            ).write(body)
        except FormParserError as error:
            raise problem(422, f"the form cannot be read: {str(error)[:MAX_TEXT]}") from error
        if not self.ended:
            raise problem(422, "the form ends early: its last boundary is missing")

    def _begin(self) -> None:
        if len(self.parts) == self._max_parts:
            raise problem(413, f"more than the {self._max_parts - 1} pictures that are taken at once")
        self.parts.append(_Part({}, bytearray()))

    def _end_header(self) -> None:
        self.parts[-1].headers[self._name.decode("latin-1").lower()] = self._value
        self._name, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        self.ended = True


def _of_form(boundary: bytes, body: bytes, limits: Limits) -> Asked:
    if not boundary:
        raise problem(422, "the content type names no boundary")
    form = _Form(limits.max_pictures + 1)
    form.parse(boundary, body)
    uploads: list[Upload] = []
    thresholds: list[float] = []
    for headers, data in form.parts:
        _, options = parse_options_header(bytes(headers.get("content-disposition", b"")))
        field = options.get(b"name", b"").decode(errors="replace")
        if field == "files" and b"filename" in options:
            name = options[b"filename"].decode(errors="replace")[:MAX_NAME]
            uploads.append(Upload(name, bytes(data)))
        elif field == "threshold" and not thresholds:
            thresholds.append(_threshold(bytes(data)))
        else:
            raise problem(
                422,
                f"field {field[:MAX_TEXT]!r} came: `files`, each a file with its name, and one `threshold` "
                "are taken",
            )
    if not uploads:
        raise problem(422, "files: none came")
    if len(uploads) > limits.max_pictures:
        raise problem(413, f"more than the {limits.max_pictures} pictures that are taken at once")
    return Asked(uploads, thresholds[0] if thresholds else THRESHOLD)


def _threshold(data: bytes) -> float:
    try:
        return FormThreshold.model_validate({"threshold": data.decode(errors="replace")}).threshold
    except ValidationError as error:
        raise problem(422, reason_of(error)) from error


def prepare_uploads(
    uploads: list[Upload], predictor: Predictor, limits: Limits, is_awaited: Callable[[], bool] = lambda: True
) -> list[Prepared]:
    """Decode pictures, and bring them to the size that the detector takes.

    Raises:
        HTTPException: One cannot be decoded (400), or has too many pixels, or all of them together (413).
        CancelledError: `is_awaited` says between two pictures that nobody waits for them any more.
    """
    prepared: list[Prepared] = []
    left = limits.max_pixels * LARGEST_PICTURES
    for place, upload in enumerate(uploads, 1):
        if not is_awaited():
            raise CancelledError
        prepared.append(_prepare(place, upload, predictor, limits, left))
        height, width = prepared[-1].size_hw
        left -= height * width
    return prepared


def _prepare(place: int, upload: Upload, predictor: Predictor, limits: Limits, left: int) -> Prepared:
    name, together = f"picture {place}", limits.max_pixels * LARGEST_PICTURES
    try:
        image = decode_bytes(upload.data, name, min(limits.max_pixels, left))
        return predictor.prepare(image, name)
    except PictureError as error:
        too_large = f"has more than the {limits.max_pixels:,} pixels that are decoded"
        if left < limits.max_pixels:
            too_large += f" of one, or brings the request's pictures to more than {together:,}"
        status, reason = REASONS.get(error.code, (413, too_large))
        raise problem(status, f"{name} {reason}") from error
