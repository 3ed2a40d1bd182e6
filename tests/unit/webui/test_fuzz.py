"""Requests made of the API's own description: whatever is sent, the server does not fail."""

import logging
import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings


schemathesis = pytest.importorskip("schemathesis")

logging.getLogger("httpx").setLevel(logging.WARNING)
MANY = int(os.environ.get("FUZZ_EXAMPLES", "100"))


@pytest.fixture(scope="module")
def description(models_dir):
    from tests.webui import run_app

    limits = {"max_output_tokens": 8, "default_max_tokens": 2, "max_choices": 2, "request_timeout": 20.0}
    with run_app(models=(str(models_dir / "doge"),), threads=1, **limits) as (address, _):
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def ask_everything(description, how):
    """Send requests to every operation, and collect what failed: (operation, status, request, answer)."""
    failures = []
    for result in description.get_all_operations():
        operation = result.ok()

        @how
        @given(case=operation.as_strategy())
        def ask(case):
            response = case.call(timeout=60)
            if response.status_code >= 500 or "x-content-type-options" not in response.headers:
                failures.append((case.operation.label, response.status_code, case.as_curl_command(), response.text))

        ask()
    return failures


few = settings(
    derandomize=True,
    max_examples=3,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
)


def test_no_request_makes_the_server_fail(description):
    assert ask_everything(description, few) == []


@pytest.mark.slow
def test_no_request_of_many_makes_the_server_fail(description):
    assert ask_everything(description, settings(few, max_examples=MANY, derandomize=False)) == []
