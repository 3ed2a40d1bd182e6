"""The page in headless Chromium, against the server and its tiny models: conversations."""

import re
import uuid

from tests.browser.page import READY, SAVED, answer_long, answer_with, fetch, make_chat


def test_an_answer_streams_in_and_is_what_the_api_gives(page):
    page.set(temperature=0, max_tokens=2000)
    page.page.evaluate("""() => {
      window.lengths = new Set();
      const look = () => {
        const writing = document.querySelector("article[aria-busy=true] [data-testid=content]");
        if (writing) window.lengths.add(writing.textContent.length);
        requestAnimationFrame(look);
      };
      look();
    }""")
    page.ask("What is 2 + 3?")
    assert re.search(r"2000 tokens · [0-9]+ tokens/s · first after [0-9]+ ms", page.find("figures").inner_text())
    assert "tokens" in page.find("context").inner_text()
    saved = page.saved()
    asked = {"model": "first", "messages": [{"role": "user", "content": "What is 2 + 3?"}], "temperature": 0}
    expected = fetch(f"{page.url}v1/chat/completions", {**asked, "max_tokens": 2000})
    assert saved["messages"][1]["content"] == expected["choices"][0]["message"]["content"]
    assert saved["title"] == "What is 2 + 3?" and saved["messages"][1]["stats"]["completion_tokens"] == 2000
    for _ in range(3):  # a browser that got no time to draw meanwhile shows a whole answer at once
        if page.page.evaluate("window.lengths.size") >= 2:
            return
        page.click("regenerate")
        page.wait_for_answers(1)
    assert page.page.evaluate("window.lengths.size") >= 2


def test_stop_keeps_what_was_written_and_what_is_being_typed(page):
    answer_long(page)
    page.send("Tell me a story")
    page.find("composer").fill("typed meanwhile")
    page.find("composer").press("Enter")  # not sent, as the answer is still being written
    page.wait("document.querySelector('article[aria-busy=true] [data-testid=content]').textContent")
    page.click("stop")
    page.wait_for_answers(1)
    assert "stopped" in page.find("figures").inner_text()
    assert page.find("composer").input_value() == "typed meanwhile"
    assert page.find("message-user").count() == 1
    assert page.saved()["messages"][1]["content"]


def test_an_edit_stays_open_until_the_answer_that_is_written_is_stopped(page):
    chat = fetch(f"{page.url}api/v1/chats", make_chat(model="first"))
    page.open(f"#{chat['id']}")
    answer_long(page)
    page.find("message-user").hover()
    page.click("edit")
    page.find("edit-text").fill("Other words")
    page.send("Meanwhile")
    page.wait("document.querySelector('article[aria-busy=true]')")
    page.find("edit-text").press("Enter")
    page.wait_to_hear("Stop the answer first.")
    assert page.find("edit-text").input_value() == "Other words"
    page.click("stop")
    page.wait_for_end()
    page.find("edit-text").press("Enter")
    page.wait("document.querySelector('article[aria-busy=true]')")
    page.click("stop")
    page.wait_for_end()
    assert page.find("message-user").get_by_test_id("content").inner_text() == "Other words"


def test_branches_come_of_editing_and_regenerating_and_arrows_switch_them(page):
    page.set(max_tokens=5)
    page.ask("First question")
    first = page.find("message-assistant").get_by_test_id("content").inner_text()
    page.click("regenerate")
    page.wait_for_answers(1)
    assert page.find("branch-place").inner_text() == "2/2"
    page.click("branch-left")
    assert page.find("branch-place").inner_text() == "1/2"
    assert page.find("message-assistant").get_by_test_id("content").inner_text() == first
    page.find("message-user").hover()
    page.click("edit")
    page.find("edit-text").fill("Second question")
    page.find("edit-text").press("Enter")
    page.wait_for_answers(1)
    assert page.find("message-user").get_by_test_id("content").inner_text() == "Second question"
    page.find("message-user").get_by_test_id("branch-left").click()
    page.settle()
    assert page.find("message-user").get_by_test_id("content").inner_text() == "First question"
    saved = page.saved()
    assert len(saved["messages"]) == 5 and saved["current_id"] in {message["id"] for message in saved["messages"][1:3]}


def test_continue_goes_on_with_the_same_answer(page):
    page.set(max_tokens=5, temperature=0)
    page.ask("A question")
    start = page.saved()["messages"][1]["content"]
    page.click("continue")
    page.wait_for_end()
    saved = page.saved()
    assert len(saved["messages"]) == 2
    assert saved["messages"][1]["content"].startswith(start) and len(saved["messages"][1]["content"]) > len(start)
    page.find("composer").fill("typed meanwhile")
    page.find("composer").press("Control+Enter")
    page.wait_for_end()
    again = page.saved()
    assert len(again["messages"]) == 2 and len(again["messages"][1]["content"]) > len(saved["messages"][1]["content"])
    assert page.find("composer").input_value() == "typed meanwhile"


def test_continuing_an_answer_that_is_whole_says_so_and_keeps_its_figures(page):
    page.set(max_tokens=5, temperature=0)
    page.ask("A question")
    before = page.saved()["messages"][1]
    figures = page.find("figures").inner_text()
    answer_with(page, "")
    page.click("continue")
    page.wait_to_hear("The model has nothing to add")
    assert page.find("figures").inner_text() == figures and page.saved()["messages"][1] == before


def test_reload_finds_the_conversation_and_the_branch_becomes_another_one(page):
    page.set(max_tokens=5)
    page.find("settings-toggle").click()
    page.find("system-prompt").fill("Be brief.")
    page.find("preset").select_option("Precise")
    page.find("system-prompt").fill("Be brief.")
    page.click("settings-close")
    page.ask("Find me again")
    before = page.find("message-assistant").get_by_test_id("content").inner_text()
    page.reload()
    page.wait_for_answers(1)
    assert page.find("message-assistant").get_by_test_id("content").inner_text() == before
    page.click("settings-toggle")
    assert (
        page.find("system-prompt").input_value() == "Be brief."
        and "Precise, changed" in page.find("preset").inner_text()
    )
    page.find("preset").select_option("Precise")
    page.wait("document.querySelector('[data-testid=system-prompt]').value === ''")
    assert page.find("preset").input_value() == "Precise" and "changed" not in page.find("preset").inner_text()
    old = page.page.url
    page.click("branch-chat", 1)
    page.wait("old => location.href !== old", old)
    assert page.saved()["title"] == "Find me again (branch)" and len(page.saved()["messages"]) == 2


def test_another_model_answers_after_it_was_chosen(page):
    page.set(max_tokens=5)
    page.ask("Who are you?")
    page.find("model-0").select_option("second")
    page.ask("And now?", 2)
    assert [message["model"] for message in page.saved()["messages"]] == [None, "first", None, "second"]


def test_two_models_answer_side_by_side_also_one_without_a_chat_template(page):
    page.set(max_tokens=8)
    page.click("compare")
    page.find("model-1").select_option("base")
    page.ask("Same question", 2)
    page.ask("Another", 4)
    for column, model in (("column-0", "first"), ("column-1", "base")):
        names = page.find(column).locator(".author").all_inner_texts()
        assert names == [model, model]
    saved = page.saved()
    assert (
        saved["settings"]["compare"]["model"] == "base" and len(saved["messages"]) == 7
    )  # the first question is shared
    page.reload()
    page.wait_for_answers(4)
    page.click("compare")
    assert page.find("column-1").count() == 0 and page.find("message-assistant").count() == 2


def test_a_long_conversation_keeps_few_messages_in_the_page(page):
    ids = [str(uuid.uuid4()) for _ in range(500)]
    messages = [
        {
            "id": id,
            "parent_id": ids[n - 1] if n else None,
            "role": ("user", "assistant")[n % 2],
            "content": f"Message {n}",
        }
        for n, id in enumerate(ids)
    ]
    chat = fetch(f"{page.url}api/v1/chats", make_chat(messages=messages, current_id=ids[-1]))
    page.open(f"#{chat['id']}")
    page.page.get_by_text("Message 499", exact=True).wait_for()
    assert page.page.locator("article").count() == 20
    assert page.page.evaluate("document.querySelectorAll('*').length") < 1500
    page.click("show-earlier")
    page.page.get_by_text("Message 460", exact=True).wait_for()
    assert page.page.locator("article").count() == 40


def test_what_is_typed_is_there_after_a_reload(page):
    page.find("composer").fill("Not sent yet")
    page.reload()
    assert page.find("composer").input_value() == "Not sent yet"


def test_a_raw_text_and_a_system_prompt_are_kept_though_the_page_is_closed_while_they_are_typed(page):
    chat = fetch(f"{page.url}api/v1/chats", make_chat(model="first"))
    message = {"id": "m", "parent_id": None, "role": "assistant", "content": "Once", "model": "first"}
    raw = make_chat(messages=[message], current_id="m", model="first", settings={"mode": "raw"})
    fetch(f"{page.url}api/v1/chats", raw)
    for hash, toggle, field in ((chat["id"], "settings-toggle", "system-prompt"), (raw["id"], None, "raw-text")):
        page.open(f"#{hash}")
        if toggle:
            page.click(toggle)
        page.find(field).focus()
        page.page.keyboard.press("End")
        page.page.keyboard.type(" and a story")
        page.page.reload()
        page.page.wait_for_selector(READY)
    page.wait("document.getElementById('raw-text').value === 'Once and a story'")
    page.wait(SAVED)
    assert fetch(f"{page.url}api/v1/chats/{chat['id']}")["system_prompt"] == " and a story"


def test_numbers_of_the_settings_can_be_typed_and_are_in_range_when_they_are_used(page):
    chat = fetch(f"{page.url}api/v1/chats", make_chat(model="first"))
    page.open(f"#{chat['id']}").click("settings-toggle")
    for name, text, kept in (
        ("temperature", "0.25", "0.25"),
        ("top_p", "0.9", "0.9"),
        ("min_p", "7", "0.5"),
        ("repetition_penalty", "-", "1"),
        ("max_tokens", "3", "3"),
    ):
        field = page.find(f"field-{name}")
        field.focus()
        page.page.keyboard.press("Control+a")
        for letter in text:
            page.page.keyboard.press(letter)
            page.settle()
        assert text == "-" or field.input_value() == text
        if name == "max_tokens":  # while it is typed
            sampling = page.saved()["settings"]["sampling"]
            assert sampling["max_tokens"] == 3 and sampling["min_p"] == 0.5
        page.page.keyboard.press("Tab")
        page.settle()
        assert field.input_value() == kept


def test_a_conversation_that_a_program_made_without_a_model_is_answered_by_one(page):
    chat = fetch(f"{page.url}api/v1/chats", make_chat())
    page.open(f"#{chat['id']}").set(max_tokens=3)
    page.click("answer")
    page.wait_for_answers(1)
    assert page.saved()["messages"][1]["model"] == "first"
