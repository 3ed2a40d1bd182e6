"""The page's lists: conversations, the archive, presets, exports and imports."""

import uuid

import pytest

from tests.browser.page import SAVED, fetch, make_chat, open_page


def test_conversations_are_searched_renamed_sorted_pinned_and_deleted(page):
    page.set(max_tokens=3)
    word = f"needle{uuid.uuid4().hex[:6]}"
    page.ask(f"Where is the {word}?")
    page.saved()
    page.click("new-chat")
    page.ask("Something else")
    page.saved()
    page.find("search").fill(word)
    page.wait_for_count("chat-item", 1)
    page.click("chat-menu")
    page.click("rename")
    page.find("details-title").fill("Renamed")
    box = page.find("details-title").bounding_box()
    page.page.mouse.move(box["x"] + 30, box["y"] + 10)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] - 200, box["y"] + 10)  # the text is selected, beyond the dialog
    page.page.mouse.up()
    page.settle()
    page.find("details-folder").fill("School")
    page.find("details-tags").fill("maths, easy")
    page.click("dialog-submit")
    page.page.get_by_role("heading", name="School").wait_for()
    page.click("chat-menu")
    page.click("pin")
    page.page.get_by_role("heading", name="Pinned").wait_for()
    page.wait(SAVED)
    chats = fetch(f"{page.url}api/v1/chats?search={word}")["chats"]
    assert [(c["title"], c["folder"], c["tags"], c["pinned"]) for c in chats] == [
        ("Renamed", "School", ["maths", "easy"], True)
    ]
    page.click("chat-menu")
    page.click("delete")
    page.click("dialog-submit")
    page.wait_for_count("chat-item", 0)
    page.wait(SAVED)
    assert fetch(f"{page.url}api/v1/chats?search={word}")["total"] == 0


def test_what_is_exported_can_be_imported(page, tmp_path):
    page.set(max_tokens=5)
    page.ask("Keep this")
    saved = page.saved()
    page.open_menu()
    with page.page.expect_download() as started:
        page.click("export-json")
    started.value.save_as(tmp_path / "chat.json")
    page.open_menu()
    with page.page.expect_download() as started:
        page.click("export-markdown")
    assert "## You\n\nKeep this" in started.value.path().read_text()
    page.open_menu()
    page.click("delete")
    page.click("dialog-submit")
    page.wait(SAVED)
    page.find("import-file").set_input_files(tmp_path / "chat.json")
    page.wait_to_hear("1 imported")
    again = fetch(f"{page.url}api/v1/chats/{saved['id']}")
    assert again["messages"] == saved["messages"] and again["current_id"] == saved["current_id"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "not JSON"),
        ('{"chats": []}', "no conversations"),
        ('{"chats": [{"title": "x"}]}', "no list of messages"),
        ('{"messages": [{"role": "wizard", "content": "x"}]}', "needs a role"),
        ('{"messages": [{"role": "user", "content": "x", "parent_id": "ring", "id": "ring"}]}', "answers none"),
    ],
)
def test_a_wrong_file_is_refused_in_words(page, tmp_path, text, message):
    (tmp_path / "wrong.json").write_text(text)
    page.find("import-file").set_input_files(tmp_path / "wrong.json")
    page.wait_to_hear("Not imported: ")
    page.wait_to_hear(message)


def test_own_presets_are_kept(page):
    page.set(temperature=0.3)
    page.click("settings-toggle")
    page.find("system-prompt").fill("Speak like a pirate.")
    page.click("preset-save")
    page.find("preset-name").fill("Pirate")
    page.click("dialog-submit")
    page.open()
    page.click("settings-toggle")
    page.find("preset").select_option("Pirate")
    page.wait("document.querySelector('[data-testid=system-prompt]').value === 'Speak like a pirate.'")
    assert page.find("field-temperature").input_value() == "0.3"


# The archive.


def test_a_conversation_is_archived_found_opened_taken_out_and_deleted(page):
    word = f"needle{uuid.uuid4().hex[:6]}"
    chat = fetch(f"{page.url}api/v1/chats", make_chat(title=f"Old {word}"))
    page.open(f"#{chat['id']}")
    page.find("search").fill(word)
    page.wait_for_count("chat-item", 1)
    page.click("chat-menu")
    page.click("archive")
    page.wait_for_count("chat-item", 0)
    page.find("archived-note").wait_for()
    page.wait(SAVED)
    assert fetch(f"{page.url}api/v1/chats?search={word}&archived=true")["total"] == 1
    page.click("search-other")
    page.wait_for_count("chat-item", 1)
    page.open()
    page.click("archive-toggle")
    page.find("archive").wait_for()
    page.find("chat-item").filter(has_text=word).locator("a").click()
    page.find("archived-note").wait_for()
    page.click("unarchive")
    page.find("archived-note").wait_for(state="detached")
    page.click("archive-close")
    page.find("chat-item").filter(has_text=word).wait_for()
    page.open_menu()
    page.click("archive")
    page.click("archive-toggle")
    page.find("chat-item").filter(has_text=word).wait_for()
    page.open_menu()
    page.click("delete")
    page.click("dialog-submit")
    page.find("chat-item").filter(has_text=word).wait_for(state="detached")
    page.wait(SAVED)
    assert fetch(f"{page.url}api/v1/chats?search={word}")["total"] == 0


def test_an_archived_conversation_is_back_by_undo(page):
    chat = fetch(f"{page.url}api/v1/chats", make_chat())
    page.open(f"#{chat['id']}")
    page.open_menu()
    page.click("archive")
    page.page.get_by_role("button", name="Undo").click()
    page.find("archived-note").wait_for(state="detached")
    page.wait(SAVED)
    assert fetch(f"{page.url}api/v1/chats/{chat['id']}")["archived"] is False
    page.page.locator(".chat-item.open").wait_for()


def test_a_change_of_the_list_that_was_not_kept_is_sent_again(page):
    chat = fetch(f"{page.url}api/v1/chats", make_chat())
    page.open(f"#{chat['id']}")
    page.page.route("**/api/v1/chats/*", lambda route: route.abort())
    page.open_menu()
    page.click("pin")
    page.wait_to_hear("Not saved")
    page.page.unroute_all()
    page.page.get_by_role("button", name="Save again").click()
    page.wait(SAVED)
    assert fetch(f"{page.url}api/v1/chats/{chat['id']}")["pinned"] is True


# Presets.


def test_presets_of_the_server_are_in_every_browser_and_can_be_deleted(page, chromium):
    name = f"Pirate / {uuid.uuid4().hex[:6]}?"
    page.click("settings-toggle")
    page.find("system-prompt").fill("Speak like a pirate.")
    page.click("preset-save")
    page.find("preset-name").fill(name)
    page.click("dialog-submit")
    page.wait("name => document.querySelector('[data-testid=preset]').value === name", name)
    assert "on the server" in page.find("presets-place").inner_text()
    with open_page(chromium, page.url) as other:
        other.open().click("settings-toggle")
        other.find("preset").select_option(name)
        other.wait("document.querySelector('[data-testid=system-prompt]').value === 'Speak like a pirate.'")
        other.click("preset-delete")
        other.find("preset-delete").wait_for(state="detached")
    assert name not in [preset["name"] for preset in fetch(f"{page.url}api/v1/presets")["presets"]]


def test_presets_that_an_earlier_page_kept_in_the_browser_move_to_the_server(page):
    name = f"Old {uuid.uuid4().hex[:6]}"
    page.page.evaluate(
        "name => localStorage.setItem('small-doge.presets', JSON.stringify([{ name, sampling: { top_k: 7 } }]))", name
    )
    page.open().click("settings-toggle")
    page.find("preset").select_option(name)
    page.wait("document.querySelector('[data-testid=field-top_k]').value === '7'")
    assert name in [preset["name"] for preset in fetch(f"{page.url}api/v1/presets")["presets"]]
    assert page.page.evaluate("localStorage.getItem('small-doge.presets')") is None


def test_a_preset_that_could_not_be_kept_is_told_with_its_name_ready_to_be_sent_again(page):
    page.page.route("**/api/v1/presets/**", lambda route: route.abort())
    page.click("settings-toggle")
    page.click("preset-save")
    page.find("preset-name").fill("Lost")
    page.click("dialog-submit")
    page.wait_to_hear("Not saved")
    page.page.unroute_all()
    page.page.get_by_role("button", name="Save again").click()
    assert page.find("preset-name").input_value() == "Lost"
    page.click("dialog-submit")
    page.wait("document.querySelector('[data-testid=preset]').value === 'Lost'")


def test_presets_and_archived_conversations_are_exported_and_imported(page, tmp_path):
    name = f"Kept {uuid.uuid4().hex[:6]}"
    chat = fetch(f"{page.url}api/v1/chats", make_chat(title=name, archived=True))
    fetch(f"{page.url}api/v1/presets/{name.replace(' ', '%20')}", {"system_prompt": "Be brief."}, "PUT")
    page.open()
    with page.page.expect_download() as started:
        page.click("export-all")
    started.value.save_as(tmp_path / "all.json")
    fetch(f"{page.url}api/v1/chats/{chat['id']}", method="DELETE")
    fetch(f"{page.url}api/v1/presets/{name.replace(' ', '%20')}", method="DELETE")
    page.find("import-file").set_input_files(tmp_path / "all.json")
    page.wait_to_hear("1 preset imported")
    page.wait_to_hear("archived ones are in the archive")
    page.click("archive-toggle")
    page.find("chat-item").filter(has_text=name).wait_for()
    assert name in [preset["name"] for preset in fetch(f"{page.url}api/v1/presets")["presets"]]
