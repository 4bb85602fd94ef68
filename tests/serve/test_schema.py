"""Requests made from the server's own description, as it has them and not: none makes it fail."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

OPERATIONS = {
    "/api/models": "GET",
    "/api/generate": "POST",
    "/v1/models": "GET",
    "/v1/models/{name}": "GET",
    "/v1/chat/completions": "POST",
    "/translate": "POST",
    "/languages": "GET",
    "/frontend/settings": "GET",
    "/health": "GET",
    "/metrics": "GET",
}
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
POSTS = [path for path, method in OPERATIONS.items() if method == "POST"]


@pytest.fixture(scope="module")
def described(address):
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


def requests(operation, mode, count):
    """Make `count` requests of an operation, of models that are there; mode: as it is described, or not."""
    real = {"model": "talk", "source": "symbols", "target": "symbols"}

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    def make(case):
        if mode == GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = {key: real.get(key, value) for key, value in case.body.items()}
        answer = case.call(timeout=60)
        assert answer.status_code < 500, answer.text
        if operation.path.startswith("/api"):
            case.validate_response(answer, checks=[schemathesis.checks.CHECKS.get_one("response_schema_conformance")])

    make()


def test_all_operations_are_described(described):
    assert {one.ok().path: one.ok().method.upper() for one in described.get_all_operations()} == OPERATIONS


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", POSTS)
def test_no_request_makes_the_server_fail(described, path, mode):
    requests(described[path][OPERATIONS[path]], mode, 15)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", POSTS)
def test_no_request_of_many_makes_the_server_fail(described, path, mode):
    requests(described[path]["POST"], mode, 300)


@pytest.mark.parametrize("path", [path for path in OPERATIONS if path not in POSTS])
def test_nothing_that_is_asked_for_makes_the_server_fail(described, path):
    requests(described[path]["GET"], GenerationMode.POSITIVE, 15)
