"""What the page says when something goes wrong."""

import re
import shutil
import uuid

from tests.browser.cable import Cable
from tests.browser.page import READY, SAVED, answer_long, fetch, make_chat, open_page


def test_a_model_that_is_not_loaded_is_said_to_be_prepared(page):
    def hide_loaded(route):
        models = route.fetch().json()
        for model in models["data"]:
            model["meta"] |= {"loaded": False, "path_kind": "checkpoint"}
        route.fulfill(json=models)

    page.page.route("**/v1/models", hide_loaded)
    page.open().set(max_tokens=1)
    waiting = []
    page.page.route("**/v1/chat/completions", lambda route: waiting.append(route))
    page.send("Are you there?")
    page.wait("/Preparing the model first … \\d+ s\\. A checkpoint is exported/.test(document.body.textContent)")
    page.wait_to_hear("Preparing the model first")
    page.page.unroute("**/v1/models")
    page.wait("/waiting \\d+ s/.test(document.body.textContent)")
    waiting[0].continue_()
    page.wait_for_answers(1)
    assert page.find("figures").inner_text().startswith("1 token ·")


def test_errors_are_told_in_words_and_nothing_typed_is_lost(page):
    page.set(max_tokens=3)
    answers = [
        {"status": 429, "headers": {"Retry-After": "7"}, "json": {"error": {"message": "full"}}},
        {"status": 503, "json": {"error": {"message": "the model could not be loaded: no memory"}}},
    ]
    page.page.route(
        "**/v1/chat/completions", lambda route: route.fulfill(**answers.pop(0)) if answers else route.abort()
    )
    page.send("Precious words")
    page.page.get_by_text("Try again in 7 s").wait_for()
    page.click("retry")
    page.page.get_by_text("no memory").wait_for()
    page.click("retry")
    page.page.get_by_text("The server does not answer").wait_for()
    assert page.find("message-user").get_by_test_id("content").inner_text() == "Precious words"
    page.page.unroute("**/v1/chat/completions")
    page.click("retry")
    page.wait_for_answers(1)
    assert page.find("error").count() == 0 and len(page.saved()["messages"]) == 2


def test_what_refuses_all_requests_is_told_once(page):
    answer = {"status": 403, "json": {"error": {"message": "this host is not allowed"}}}
    page.page.route(re.compile("/v1/"), lambda route: route.fulfill(**answer))
    page.open()
    page.find("models-error").wait_for()
    page.page.wait_for_load_state("networkidle")
    page.settle()
    assert page.page.get_by_text("this host is not allowed").count() == 1
    page.page.unroute_all()
    page.page.get_by_role("button", name="Try again").click()
    page.find("welcome").wait_for()
    page.wait("!document.querySelector('.error')")


def test_a_conversation_that_could_not_be_saved_is_saved_later(page):
    page.set(max_tokens=3)
    page.page.route("**/api/v1/chats**", lambda route: route.abort())
    page.page.route("**/api/v1/chats/**", lambda route: route.abort())
    page.ask("Unsaved")
    page.page.get_by_role("button", name="Save again").wait_for()
    page.page.unroute_all()
    page.page.get_by_role("button", name="Save again").click()
    page.wait(SAVED)
    assert len(page.saved()["messages"]) == 2


def test_the_key_is_asked_for_and_kept_for_the_tab(chromium, models, tmp_path, run_app):
    with (
        run_app(models=(str(models / "first"),), chats=str(tmp_path / "chats.db"), threads=1, api_key="secret") as (
            address,
            _,
        ),
        open_page(chromium, f"{address}/") as page,
    ):
        page.page.goto(page.url)
        page.find("key").fill("wrong")
        page.click("dialog-submit")
        page.page.get_by_text("refused this key. Enter another one").wait_for()
        page.find("key").fill("secret")
        page.click("dialog-submit")
        page.page.wait_for_selector(READY)
        page.set(max_tokens=3)
        page.ask("Hello")
        page.wait(SAVED)
        page.reload()
        page.wait_for_answers(1)


def test_connection_that_breaks_in_mid_answer_keeps_what_was_written_and_goes_on(chromium, server):
    with Cable(server) as cable, open_page(chromium, f"{cable.address}/") as page:
        page.open().set(max_tokens=4)
        answer_long(page)
        page.send("Tell me all")
        page.wait("document.querySelector('article[aria-busy=true] [data-testid=content]')?.textContent")
        cable.cut()
        page.wait_for_text("error", "The connection to the server broke off. What was written is kept")
        page.wait_to_hear("Not saved: The server does not answer. Start it again with small-doge serve")
        written = page.find("message-assistant").get_by_test_id("content").inner_text()
        assert written
        cable.mend()
        page.page.get_by_role("button", name="Save again").click()
        page.page.unroute_all()
        page.click("retry")
        page.wait_for_end()
        page.find("error").wait_for(state="detached")
        assert len(page.saved()["messages"]) == 2


def test_model_that_can_not_be_loaded_is_told_and_another_answers(chromium, models, tmp_path, run_app):
    shutil.copytree(models / "second", tmp_path / "torn")
    (tmp_path / "torn" / "model.onnx").write_bytes(b"torn")
    with (
        run_app(models=(str(models / "first"), str(tmp_path / "torn")), threads=1) as (address, _),
        open_page(chromium, f"{address}/") as page,
    ):
        page.open().set(max_tokens=3)
        page.find("model-0").select_option("torn")
        page.send("Hello")
        page.wait_for_text("error", "torn")
        page.find("model-0").select_option("first")
        page.click("retry")
        page.wait_for_answers(1)


def test_conversation_that_is_too_long_says_what_to_do(chromium, models, run_app):
    with (
        run_app(models=(str(models / "first"),), threads=1, max_prompt_tokens=12) as (address, _),
        open_page(chromium, f"{address}/") as page,
    ):
        page.open()
        page.send("one two three four five six seven eight nine ten")
        page.wait_for_text("error", "--max-prompt-tokens")
        page.wait_for_text("error", "Begin a new conversation, or edit an earlier message to a shorter one.")


def test_conversation_longer_than_what_the_model_takes_well_is_noted(page):
    answer = {"id": str(uuid.uuid4()), "role": "assistant", "content": "Hello", "model": "first"}
    answer["stats"] = {"prompt_tokens": 4000, "completion_tokens": 96, "finish_reason": "stop"}
    chat = make_chat(model="first", current_id=None)
    chat["messages"].append(answer)
    fetch(f"{page.url}api/v1/chats", chat)
    page.open(f"#{chat['id']}")
    page.wait_for_text("full-note", "Begin a new one, or edit an earlier message")


def test_no_model_says_how_to_get_one_and_nothing_typed_is_lost(page):
    page.page.route("**/v1/models", lambda route: route.fulfill(json={"data": []}))
    page.page.evaluate("localStorage.clear()")
    page.open()
    page.wait_for_text("models-error", "Make one with small-doge demo, or name one: small-doge serve MODEL")
    page.send("Hello")
    page.wait_to_hear("There is no model yet")
    assert page.find("composer").input_value() == "Hello"
    page.page.unroute_all()
    page.page.get_by_role("button", name="Try again").click()
    page.find("welcome").wait_for()  # the models are asked for again
    page.find("composer").press("Enter")
    page.wait_for_answers(1)


def test_one_model_beside_itself_says_how_to_get_a_second_one(page):
    def leave_one(route):
        answer = route.fetch().json()
        route.fulfill(json={**answer, "data": answer["data"][:1]})

    page.page.route("**/v1/models", leave_one)
    page.open().click("compare")
    page.wait_to_hear("There is one model, which answers in both columns. Name a second one")
    page.set(max_tokens=2)
    page.ask("Hello", 2)


def test_page_whose_configuration_is_missing_says_so(page):
    page.page.route("**/config.json", lambda route: route.fulfill(status=404, body=""))
    page.page.goto(page.url)
    page.page.get_by_text(
        "The page could not start: config.json, which lies beside the page, is not there (404)"
    ).wait_for()
