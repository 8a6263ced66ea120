"""The OpenAPI document as a page, without a script and with nothing fetched."""

import json
from html import escape
from typing import Any


def documentation_page(document: dict[str, Any]) -> str:
    """HTML that lists each operation: what it takes, and each answer that it gives."""
    title = escape(document["info"]["title"])
    operations = "".join(
        _operation(method, path, one)
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    )
    schemas = "".join(
        f"<h3>{escape(name)}</h3>{_json(schema)}"
        for name, schema in document["components"]["schemas"].items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="/page/style.css"></head>'
        f"<body><main><h1>{title}</h1><p>{escape(document['info']['description'])} "
        'For programs: <a href="/openapi.json">openapi.json</a>. The <a href="/">page</a> to try it.</p>'
        f"{operations}<h2>Schemas</h2>{schemas}</main></body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    takes = "".join(f"<h3>Takes {escape(kind)}</h3>{_json(one['schema'])}" for kind, one in body.items())
    answers = "".join(
        f"<dt>{status}</dt><dd>{escape(answer['description'])}</dd>"
        for status, answer in operation["responses"].items()
    )
    told = escape(operation.get("description", ""))
    return f"<h2>{method.upper()} {escape(path)}</h2><p>{told}</p>{takes}<h3>Answers</h3><dl>{answers}</dl>"


def _json(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>"
