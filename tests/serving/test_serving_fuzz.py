"""Requests made up from the service's own OpenAPI document: no answer may be one that it does not state."""

import hypothesis
import schemathesis

from src.serving import Service, build_app
from tests.serving.conftest import LIMITS, Means

TOKEN = "0123456789abcdef"
CONFIG = {
    "checks": {
        # whether bytes are a picture is beyond a schema; 413 is the answer where too many came
        "positive_data_acceptance": {"expected-statuses": [200, 400, 413, 422]},
        "negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 413, 415, 422]},
    }
}

schema = schemathesis.openapi.from_asgi(
    "/openapi.json",
    build_app(Service(Means(), "means", LIMITS, max_wait_ms=0), TOKEN),
    config=schemathesis.config.SchemathesisConfig.from_dict(CONFIG),
)


def test_example_of_the_document_is_answered() -> None:
    operation = schema["/predict"]["POST"]
    example = operation.definition.raw["requestBody"]["content"]["application/json"]["example"]
    case = operation.Case(body=example, media_type="application/json")
    answer = case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200


@schema.parametrize()
@hypothesis.settings(max_examples=60, derandomize=True, deadline=None, database=None)
def test_answers_are_those_of_the_document(case: schemathesis.Case) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})
