"""What the server says when it has started, and what it serves without models."""

import httpx
import pytest
from tests.webui import run_app

from small_doge.webui.registry import ModelRegistry
from small_doge.webui.serving import announce
from small_doge.webui.settings import ServeSettings


@pytest.fixture
def tell(models_dir):
    """Announces a server, and gives the lines."""

    def run(*ports, **settings):
        checked = ServeSettings(models=(str(models_dir / "doge"),), **settings)
        told = []
        announce(checked, ports, ModelRegistry(checked, told.append), told.append)
        return "\n".join(told)

    return run


def test_the_page_and_a_shell_are_told_where_to_go(tell):
    told = tell(8000)
    assert "Open http://127.0.0.1:8000 in a browser" in told
    assert "curl http://127.0.0.1:8000/v1/chat/completions" in told
    assert "Either port" not in told


def test_of_two_ports_it_is_said_which_is_which(tell):
    told = tell(8000, 7860)
    assert "Open http://127.0.0.1:7860 in a browser" in told
    assert "API at http://127.0.0.1:8000. Either port has both" in told
    assert "curl http://127.0.0.1:8000/v1/" in told and "http://127.0.0.1:8000/docs" in told
    assert "7860" not in tell(8000, 7860, no_page=True)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("::1", "http://[::1]:80"), ("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://127.0.0.1:80")],
)
def test_the_address_is_one_that_a_browser_reaches(tell, host, shown):
    assert f"Open {shown} in" in tell(80, host=host, no_api_key=True)


def test_a_key_is_asked_for_and_not_shown(tell):
    told = tell(8000, api_key="secret")
    assert "It will ask for the API key" in told and "$SMALLDOGE_API_KEY" in told
    assert "secret" not in told


def test_a_page_alone_tells_that_it_is_alive():
    with run_app(page_only=True, backend="http://127.0.0.1:9") as (address, _):
        assert httpx.get(f"{address}/health").json()["status"] == "ok"
        assert "smalldoge_http_responses" in httpx.get(f"{address}/metrics").text
        assert httpx.get(f"{address}/config.json").json()["base"] == "http://127.0.0.1:9/"
        assert httpx.get(f"{address}/v1/models").status_code == 404
