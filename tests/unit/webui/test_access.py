"""Who reaches the server, as the guide's section "Access from other machines" has it."""

import socket

import httpx
import pytest
from tests.webui import run_app


KEY = {"Authorization": "Bearer secret"}


@pytest.fixture
def ask(tmp_path):
    """Asks a server with some settings for its models, with some headers; gives the status."""

    def run(headers, **settings):
        with run_app(models_dir=str(tmp_path), api_key="secret", **settings) as (address, _):
            return httpx.get(f"{address}/v1/models", headers=headers).status_code

    return run


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "doge.example.org", "Origin": "https://doge.example.org", **KEY}, 200),
        ({"Host": "doge.example.org", "x-api-key": "secret"}, 200),
        ({"Host": "doge.example.org"}, 401),
        ({"Host": "doge.example.org", "x-api-key": "other"}, 401),
        ({"Host": "doge.example.org", "Origin": "https://page.example", **KEY}, 403),
        ({"Host": "other.example.org", **KEY}, 421),
        ({"Host": "192.168.1.5", **KEY}, 421),  # nobody can have come by this address
    ],
)
def test_a_proxy_passes_on_the_name_that_is_allowed(ask, headers, status):
    assert ask(headers, allowed_hosts=["doge.example.org"]) == status


@pytest.mark.parametrize(
    ("name", "status"), [("192.168.1.5:8000", 200), (socket.gethostname(), 200), ("evil.example", 421)]
)
def test_a_server_for_other_machines_has_its_addresses_and_the_machines_name(ask, name, status):
    assert ask({"Host": name, **KEY}, host="0.0.0.0") == status


@pytest.mark.parametrize(("origins", "status"), [(["https://page.example"], 200), (["*"], 200), ([], 403)])
def test_pages_of_other_origins_must_be_allowed(ask, origins, status):
    assert ask({"Origin": "https://page.example", **KEY}, cors_origins=origins) == status
