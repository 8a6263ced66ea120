"""The service's addresses."""

import mimetypes
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

from .body import Body
from .documentation import documentation_page
from .guard import Guard, check_token
from .schema import PROBLEMS, Answer, Health, ModelFacts, Problem, predict_body
from .service import Service

PAGE = Path(__file__).parent / "page"
IN_WORDS = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
BEARER = {"bearer": {"type": "http", "scheme": "bearer"}}


def build_app(service: Service, token: str | None = None) -> Guard:
    """The ASGI application of a service.

    Args:
        service: Who answers; it outlives the application.
        token: What requests to `/predict` and `/metrics` must carry; None asks for nothing.
    """
    app = FastAPI(
        title=f"D-FINE: {service.name}",
        description="Finds objects in pictures.",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(Exception, _failed)
    _add_prediction(app, service, token)
    _add_facts(app, service, token)
    _add_pages(app)
    if token is not None:
        app.openapi()["components"]["securitySchemes"] = BEARER  # the document is made once, and kept
    return Guard(app, service.metrics)  # around all of it: FastAPI answers a fault outside its own middleware


async def _failed(_request: Request, _error: Exception) -> JSONResponse:
    """What a client is told of a fault of ours; the log has the rest."""
    return JSONResponse({"detail": "the detector failed; the service's log says why"}, 500)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, **PROBLEMS[status]} for status in statuses}


def _guarded(token: str | None) -> dict[str, Any]:
    return {} if token is None else {"security": [{"bearer": []}]}


def _add_prediction(app: FastAPI, service: Service, token: str | None) -> None:
    asked = {**predict_body(service.limits), **_guarded(token)}
    statuses = [status for status in PROBLEMS if token or status != 401]

    @app.post("/predict", responses=_problems(*statuses), openapi_extra=asked)
    async def predict(request: Request) -> Answer:
        """Detect in one or more pictures. Pixels are taken as stored: an EXIF orientation is not applied."""
        body = Body(request, service.limits)
        try:
            check_token(request.headers.get("authorization", ""), token)
            return await service.answer(request.headers.get("content-type", ""), body)
        except HTTPException as refusal:
            await body.drain()
            if not body.ended:
                refusal.headers = {**(refusal.headers or {}), "Connection": "close"}
            raise


def _add_facts(app: FastAPI, service: Service, token: str | None) -> None:
    @app.get("/model")
    async def model() -> ModelFacts:
        """The model's classes, and what may be asked of it at most."""
        return service.facts(token_required=token is not None)

    @app.get("/health")
    async def health() -> Health:
        """Whether the service answers."""
        return Health(status="ok", waiting=service.waiting)

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={401: {**PROBLEMS[401], "content": IN_WORDS}} if token else {},
        openapi_extra=_guarded(token),
    )
    async def metrics(request: Request) -> Response:
        """What is counted, in Prometheus' text format."""
        check_token(request.headers.get("authorization", ""), token)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_pages(app: FastAPI) -> None:
    files = {path.name: path.read_bytes() for path in PAGE.glob("*.*")}  # no request comes to the disk

    def page(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such page")
        return Response(files[name], media_type=mimetypes.guess_type(name)[0])

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        return page(name)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(documentation_page(app.openapi()))
