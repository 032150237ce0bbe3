"""Requests made up from an example's own schema: whatever they say, nothing breaks."""

from __future__ import annotations

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error

from tests.examples.starting import EXAMPLES, started

KEYS = ("sk-verified", "sk-trial", "sk-nobody")
EXAMPLES_EACH = 15


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    """The schema of an example that no other test counts the requests of."""
    path = EXAMPLES / "server" / "fastapi_app.py"
    with started(path, tmp_path_factory.mktemp("fuzzing")) as example:
        yield schemathesis.openapi.from_url(f"{example.url}/openapi.json")


def test_no_request_made_up_from_the_schema_breaks_the_server(schema):
    statuses: Counter[tuple[str, int]] = Counter()
    operations = [found.ok() for found in schema.get_all_operations()]

    def attempt(case):
        for key in KEYS:
            response = case.call(headers={"authorization": f"Bearer {key}"})
            case.validate_response(response, checks=[not_a_server_error])
            statuses[key, response.status_code] += 1

    quick = settings(
        max_examples=EXAMPLES_EACH,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for operation in operations:
        quick(given(operation.as_strategy())(attempt))()

    assert len(operations) >= 6
    assert statuses["sk-verified", 200] > len(operations)
    assert {status for key, status in statuses if key == "sk-nobody"} == {200, 401}
