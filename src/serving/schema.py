"""What travels over the wire, as the OpenAPI document states it."""

from typing import Annotated, Any

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..deploy.detector import THRESHOLD
from .limits import MAX_TEXT, Limits

Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Detection(BaseModel):
    """One object: its class, score, and corners x0, y0, x1, y1 in pixels of the picture as stored."""

    label: int
    id: int
    name: str
    score: float
    box: tuple[float, float, float, float]


class PictureAnswer(BaseModel):
    """What was found in one picture, best first; `name` is the file's, as the client gave it."""

    name: str | None
    width: int
    height: int
    detections: list[Detection]


class Answer(BaseModel):
    """A result for each picture, in the order sent."""

    results: list[PictureAnswer]


class ModelClass(BaseModel):
    """A class: its index from 0, its id in the training annotations, its name."""

    label: int
    id: int
    name: str


class ModelFacts(BaseModel):
    """What a client has to know before it asks."""

    name: str
    classes: list[ModelClass]
    input_size_hw: tuple[int, int]
    threshold: float
    max_upload_bytes: int
    max_pixels: int
    max_pictures: int
    token_required: bool


class Health(BaseModel):
    """That the service answers, and how many pictures it has on its hands."""

    status: str
    waiting: int


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


class JsonRequest(BaseModel):
    """Pictures, each a whole file in base64."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: Annotated[list[str], Field(min_length=1)]
    threshold: Threshold = THRESHOLD


class FormThreshold(BaseModel):
    """The field of a form, where every number is text."""

    threshold: Threshold


ONE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
TEXT = {"schema": {"type": "string"}}
PROBLEMS: dict[int, dict[str, Any]] = {
    400: {"description": "A picture cannot be decoded: it is of no known kind, truncated or damaged."},
    401: {"description": "The token is missing or wrong.", "headers": {"WWW-Authenticate": TEXT}},
    408: {"description": "The body came too slowly."},
    413: {"description": "The body, a picture, or the number of pictures is too large."},
    415: {"description": "The body is neither multipart/form-data nor application/json."},
    422: {"description": "The fields are not those asked for."},
    500: {"description": "The detector failed."},
    503: {
        "description": "Too much is waiting, or the answer took too long: try again later.",
        "headers": {"Retry-After": TEXT},
    },
}


def reason_of(error: ValidationError) -> str:
    """The first of the faults, in one line."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or "body"
    return f"{place[:MAX_TEXT]}: {first['msg'][:MAX_TEXT]}"


def problem(status: int, reason: str) -> HTTPException:
    """The refusal of a request, with the headers that belong to it."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(status)
    return HTTPException(status, reason, headers)


def predict_body(limits: Limits) -> dict[str, Any]:
    """The OpenAPI description of what `/predict` takes."""
    as_json = JsonRequest.model_json_schema()
    as_json["properties"]["images"]["maxItems"] = limits.max_pictures
    as_json["properties"]["images"]["items"] = {"type": "string", "contentEncoding": "base64"}
    files = {
        "type": "array",
        "items": {"type": "string", "contentMediaType": "application/octet-stream"},
        "minItems": 1,
        "maxItems": limits.max_pictures,
    }
    as_form = {
        "type": "object",
        "properties": {"files": files, "threshold": as_json["properties"]["threshold"]},
        "required": ["files"],
        "additionalProperties": False,
    }
    example = {"images": [ONE_PIXEL], "threshold": THRESHOLD}
    content = {
        "multipart/form-data": {"schema": as_form},
        "application/json": {"schema": as_json, "example": example},
    }
    return {"requestBody": {"required": True, "content": content}}
