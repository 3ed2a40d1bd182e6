"""The page of one server (--frontend-only) on the API of another: it works, and says which setting is wrong on which side."""

from contextlib import contextmanager

import pytest

from tests.browser.page import open_page


@pytest.fixture(scope="module")
def origins():
    """Origins that the API's server allows, which a test may change."""
    return ["http://nobody.example"]


@pytest.fixture(scope="module")
def api(models, run_app, origins, tmp_path_factory):
    """Address of a server with a model; it keeps its conversations."""
    chats = tmp_path_factory.mktemp("chats") / "chats.db"
    with run_app(models=(str(models / "first"),), chats=str(chats), threads=1, cors_origins=origins, no_page=True) as (
        address,
        _,
    ):
        yield address


@pytest.fixture(scope="module")
def open_elsewhere(chromium, run_app):
    """Opens a page that asks a server elsewhere."""

    @contextmanager
    def open_elsewhere(backend):
        with (
            run_app(page_only=True, backend=backend) as (address, _),
            open_page(chromium, f"{address}/", f"{backend}/") as page,
        ):
            page.origin = address
            yield page

    return open_elsewhere


def allow(origins, *allowed):
    origins[:] = ["http://nobody.example", *allowed]


def test_page_chats_and_keeps_all_on_the_other_server(api, origins, open_elsewhere):
    with open_elsewhere(api) as page:
        allow(origins, page.origin)
        page.open().set(max_tokens=5)
        page.ask("Are you elsewhere?")
        saved = page.saved()
        assert [message["role"] for message in saved["messages"]] == ["user", "assistant"]
        page.click("mode-raw")
        page.find("raw-text").fill("Ada lives in")
        page.click("raw-continue")
        page.find("token").first.wait_for(state="attached")
        page.open(f"#{saved['id']}")
        page.wait_for_answers(1)
        page.open_menu()
        page.click("delete")
        page.click("dialog-submit")
        page.find("chat-item").filter(has_text="Are you elsewhere?").wait_for(state="detached")
        asked = {url.split("/")[2] for url in page.asked if "/api/" in url or "/v1/" in url}
        assert asked == {api.split("/")[2]}


def test_server_that_does_not_allow_the_page_is_named_with_the_option(api, origins, open_elsewhere):
    allow(origins)
    with open_elsewhere(api) as page:
        page.open()
        page.wait_for_text("models-error", f"The server at {api} ")
        page.wait_for_text("models-error", f"--cors-origins {page.origin}")
        allow(origins, page.origin)
        page.page.get_by_role("button", name="Try again").click()
        page.find("welcome").wait_for()


def test_server_that_allows_no_page_at_all_is_told_from_none(models, open_elsewhere, run_app):
    with (
        run_app(models=(str(models / "first"),), threads=1) as (address, _),
        open_elsewhere(address) as page,
    ):
        page.open()
        page.wait_for_text("models-error", f"The server at {address} is there, but refuses pages of {page.origin}")
        page.wait_for_text("models-error", f"--cors-origins {page.origin}")


def test_server_that_is_down_is_told_with_both_sides(open_elsewhere):
    with open_elsewhere("http://127.0.0.1:9") as page:
        page.open()
        page.wait_for_text("models-error", "No server answers at http://127.0.0.1:9")
        page.wait_for_text("models-error", f"small-doge serve --cors-origins {page.origin}")
        page.wait_for_text("models-error", "--backend")
        page.send("Hello?")
        page.wait_to_hear("No server answers at")
        assert page.find("composer").input_value() == "Hello?"


def test_loopback_is_explained_to_another_machine(chromium, run_app):
    with (
        run_app(page_only=True, backend="http://127.0.0.1:9", allowed_hosts=["doge.test"]) as (address, _),
        open_page(chromium, address.replace("127.0.0.1", "doge.test") + "/") as page,
    ):
        page.home = "http://127.0.0.1:9/"
        page.open()
        page.wait_for_text("models-error", "127.0.0.1 is the machine that you sit at")


@pytest.mark.parametrize("allows", [True, False])
def test_another_program_is_no_server_of_ours(allows, open_elsewhere):
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from tests.webui import run_asgi

    headers = {"Access-Control-Allow-Origin": "*"} if allows else {}
    other = Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("Hello", headers=headers))])
    with run_asgi(other) as address, open_elsewhere(address) as page:
        page.open()
        words = "correct --backend where this page is served" if allows else "is there, but refuses pages of"
        page.wait_for_text("models-error", words)


def test_name_that_the_server_does_not_know_is_told_with_its_option(api, origins, open_elsewhere):
    with open_elsewhere(api.replace("127.0.0.1", "doge.test")) as page:
        allow(origins, page.origin)
        page.open()
        page.wait_for_text("models-error", "--allowed-hosts")


def test_key_of_the_other_server_is_asked_for(models, open_elsewhere, run_app):
    origins = ["http://nobody.example"]
    settings = {"models": (str(models / "first"),), "threads": 1, "api_key": "secret", "cors_origins": origins}
    with run_app(**settings) as (address, _), open_elsewhere(address) as page:
        allow(origins, page.origin)
        page.page.goto(page.url)
        page.page.get_by_text(f"The server at {address} needs an API key: the one of its --api-key").wait_for()
        page.find("key").fill("wrong")
        page.click("dialog-submit")
        page.page.get_by_text(f"The server at {address} refused this key").wait_for()
        page.find("key").fill("secret")
        page.click("dialog-submit")
        page.find("welcome").wait_for()
        page.set(max_tokens=3)
        page.ask("Hello")


def test_key_that_is_not_given_leaves_the_reason(models, open_elsewhere, run_app):
    origins = ["*"]
    settings = {"models": (str(models / "first"),), "threads": 1, "api_key": "secret", "cors_origins": origins}
    with run_app(**settings) as (address, _), open_elsewhere(address) as page:
        page.page.goto(page.url)
        page.find("key").wait_for()
        page.page.keyboard.press("Escape")
        page.wait_for_text("models-error", "needs an API key: the one of its --api-key or SMALLDOGE_API_KEY")
