"""The page on phones, by the keyboard, for screen readers, in both colours."""

import pytest

from tests.browser.page import SAVED, answer_long, answer_with, open_page


def test_a_phone_shows_everything_without_scrolling_sideways(chromium, server):
    with open_page(chromium, server, viewport={"width": 320, "height": 640}, has_touch=True) as page:
        page.open().set(max_tokens=20)

        def check():
            assert page.page.evaluate("document.documentElement.scrollWidth") <= 320
            wide = page.page.evaluate("""() => [...document.querySelectorAll("button, select, textarea, article")]
              .filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > 321).map((e) => e.outerHTML.slice(0, 200))""")
            assert wide == []

        check()
        page.ask("A question that is long enough to need several lines on a narrow screen, and then some more")
        check()
        page.click("sidebar-toggle")
        check()
        page.open_menu()
        check()
        page.page.keyboard.press("Escape")
        page.click("sidebar-close")
        page.click("compare")
        check()
        page.click("settings-toggle")
        check()
        page.click("settings-close")
        page.click("mode-raw")
        check()
        page.find("raw-text").fill("<|begin_of_text|>" * 9 + " ".join(["word"] * 40))
        page.click("raw-continue")
        page.find("token").first.wait_for(state="attached")  # its text may be part of a character
        page.find("raw-continue").wait_for()
        page.click("inside-toggle")
        page.find("strip").wait_for()
        check()
        wide = page.page.evaluate("""() => [...document.querySelectorAll(".raw-scroll, .raw-scroll *")]
          .filter((e) => e.getBoundingClientRect().right > 320 || e.matches(".raw-scroll") && e.scrollWidth > e.clientWidth)
          .map((e) => e.outerHTML.slice(0, 200))""")
        assert wide == []


def test_the_keyboard_alone_suffices(page):
    keys = page.page.keyboard
    page.set(max_tokens=3)
    page.find("composer").focus()
    keys.type("Typed")
    keys.press("Enter")
    page.wait_for_answers(1)
    keys.press("Control+Shift+R")
    page.page.get_by_text("2/2").wait_for()
    page.wait_for_answers(1)
    keys.press("Alt+ArrowLeft")
    page.page.get_by_text("1/2").wait_for()
    keys.press("ArrowUp")
    page.find("edit-text").wait_for()
    keys.press("Escape")
    page.wait("document.activeElement.id === 'composer'")
    keys.press("ArrowUp")
    page.find("edit-text").wait_for()
    keys.type(" again")
    keys.press("Enter")
    page.page.get_by_text("Typed again").first.wait_for()
    page.wait_for_answers(1)
    keys.press("Control+,")
    page.find("settings").wait_for()
    keys.press("Escape")
    page.find("settings").wait_for(state="detached")
    page.find("log" if page.find("log").count() else "column-0").locator("[role=log]").focus()
    keys.press("?")
    page.find("help-dialog").wait_for()
    keys.press("Escape")
    page.find("help-dialog").wait_for(state="detached")
    keys.press("Control+k")
    page.wait("document.activeElement.id === 'search'")
    keys.type("Typed")
    page.wait("document.querySelectorAll('[data-testid=chat-item]').length >= 1")
    for _ in range(20):
        keys.press("Tab")
        if page.page.evaluate("document.activeElement.dataset.testid") == "chat-menu":
            break
    keys.press("Enter")  # the menu of the first conversation
    page.find("rename").wait_for()
    keys.press("ArrowDown")
    assert page.page.evaluate("document.activeElement.dataset.testid") == "pin"
    keys.press("Escape")
    page.find("rename").wait_for(state="detached")
    keys.press("Control+Shift+O")
    page.find("welcome").wait_for()
    assert page.page.evaluate("document.activeElement.id") == "composer"
    page.find("new-chat").focus()
    keys.press("Shift+Tab")
    keys.press("Enter")  # the link over all that lies before
    assert page.page.evaluate("document.activeElement.id") == "composer"


def test_colours_follow_the_system_and_can_be_chosen(chromium, server):
    ground = "getComputedStyle(document.body).backgroundColor"
    with open_page(chromium, server, color_scheme="dark") as page:
        page.open()
        dark = page.page.evaluate(ground)
        page.click("settings-toggle")
        page.click("theme-light")
        light = page.page.evaluate(ground)
        assert dark != light
        page.open()
        assert page.page.evaluate(ground) == light
        page.click("settings-toggle")
        page.click("theme-system")
        page.wait(f"{ground} === '{dark}'")


CRAMPED = """() => {
  const main = document.querySelector("main").getBoundingClientRect();
  const parts = [...document.querySelectorAll("main > .bar > *, .column-head > *, .composer > *")];
  const boxes = parts.map((part) => [part.outerHTML.slice(0, 80), part.getBoundingClientRect()]).filter(([, box]) => box.width);
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  return [
    ...boxes.filter(([, box]) => box.left < main.left - 1 || box.right > main.right + 1).map(([name]) => ["outside", name]),
    ...boxes.filter(([, box], i) => boxes.some(([, other], j) => i < j && meet(box, other))).map(([name]) => ["overlaps", name]),
    ...[...document.querySelectorAll("main .model-select")].filter((one) => one.clientWidth < 72).map(() => ["narrow", "model"]),
    ...(main.width < 330 ? [["narrow", "main"]] : []),
    ...(document.documentElement.scrollWidth > innerWidth ? [["scrolls", "page"]] : []),
  ];
}"""


@pytest.mark.parametrize("columns", [1, 2])
def test_everything_has_room_at_every_width_with_any_panel(page, columns):
    page.set(max_tokens=20)
    if columns == 2:
        page.click("compare")
    page.ask("Hello", columns)
    for width in (360, 600, 650, 800, 801, 900, 1100, 1400):
        page.page.set_viewport_size({"width": width, "height": 800})
        page.settle()  # panels make room when the page hears of the width
        for panels in ((), ("sidebar",), ("settings",), ("sidebar", "settings")):
            for name in ("settings", "sidebar"):
                if (name in panels) != page.find(name).is_visible():
                    page.find(f"{name}-toggle").evaluate("button => button.click()")  # it may be covered
                    page.settle()
            assert page.page.evaluate(CRAMPED) == [], (width, panels)


def list_unnamed(page):
    """What can be focused and has no name for a screen reader."""
    nodes = page.page.context.new_cdp_session(page.page).send("Accessibility.getFullAXTree")["nodes"]
    unnamed = []
    for node in nodes:
        properties = {one["name"]: one["value"].get("value") for one in node.get("properties", ())}
        if not node["ignored"] and properties.get("focusable") and not node.get("name", {}).get("value"):
            unnamed.append((node["role"]["value"], node.get("value")))
    return [one for one in unnamed if one[0] not in ("RootWebArea", "generic")]


def test_everything_that_can_be_reached_has_a_name(page):
    page.set(max_tokens=12)
    page.ask("Hello")
    assert list_unnamed(page) == []
    page.open_menu()
    assert list_unnamed(page) == []
    page.click("rename")
    assert list_unnamed(page) == []
    page.page.keyboard.press("Escape")
    page.click("settings-toggle")
    page.click("compare")
    assert list_unnamed(page) == []
    page.click("mode-raw")
    page.find("raw-text").fill("Ada lives in")
    page.click("raw-continue")
    page.find("raw-continue").wait_for()
    page.click("inside-toggle")
    page.find("strip").wait_for()
    page.find("raw-text").press("Alt+ArrowDown")
    page.find("choice").first.wait_for()
    assert list_unnamed(page) == []


def test_screen_readers_hear_answers_once_whole_and_what_is_waited_for(page):
    page.set(max_tokens=20, temperature=0)
    answer_with(page, "<think>Hm</think>**Paris** is `the` answer.")
    page.ask("Where?")
    page.wait_to_hear("first: Paris is the answer.")
    heard = page.find("announcer").inner_text()
    assert (
        heard.count("Paris") == 1
        and "Hm" not in heard
        and page.find("announcer").get_attribute("aria-live") == "polite"
    )
    assert page.page.locator("[role=log][aria-live=off]").count() == 1  # else they would hear each token
    assert page.page.get_by_role("heading", level=1).inner_text() == "Where?"
    page.page.unroute_all()
    page.page.route("**/v1/chat/completions", lambda route: route.abort())
    page.send("Fail")
    page.page.get_by_role("alert").filter(has_text="The server").wait_for()


def test_screen_readers_hear_a_long_answer_in_sentences(page):
    # Speech comes every three seconds of the page's clock, which goes a hundred times faster here.
    page.page.add_init_script("const now = performance.now.bind(performance); performance.now = () => 100 * now();")
    page.open()
    answer_long(page)
    page.send("Tell me a story")
    page.wait("document.querySelectorAll('[data-testid=announcer] p').length > 1")
    assert page.find("announcer").inner_text().startswith("first: ")


def test_the_focus_is_never_lost(page):
    keys = page.page.keyboard
    page.set(max_tokens=3)
    page.wait_for_focus("settings-toggle")  # which opened what was closed
    page.ask("Hello")
    page.find("composer").focus()
    keys.press("Control+,")
    page.wait_for_focus("settings-close")
    keys.press("Escape")
    page.wait_for_focus("composer")
    page.find("regenerate").focus()
    keys.press("Enter")
    page.page.get_by_text("2/2").wait_for()
    page.wait_for_answers(1)
    page.wait_for_focus("composer")
    page.find("branch-left").focus()
    keys.press("Enter")
    page.page.get_by_text("1/2").wait_for()
    page.wait_for_focus("branch-left")  # there is no branch before, and yet it keeps the focus
    keys.press("Enter")
    keys.press("Tab")
    page.wait_for_focus("branch-right")
    answer_long(page)
    page.send("Long")
    page.wait("document.querySelector('article[aria-busy=true] [data-testid=content]')?.textContent")
    page.find("stop").focus()
    keys.press("Enter")
    page.wait_for_answers(2)
    page.wait_for_focus("composer")
    page.wait(SAVED)
    page.page.locator(".chat-item.open").get_by_test_id("chat-menu").focus()
    keys.press("Enter")
    page.find("archive").focus()
    keys.press("Enter")
    page.wait("document.activeElement.closest('.chat-list, .search') !== null")


def test_an_open_panel_of_a_phone_holds_the_focus_and_gives_it_back(chromium, server):
    with open_page(chromium, server, viewport={"width": 360, "height": 640}) as page:
        page.open()
        for name in ("sidebar", "settings"):
            page.find(f"{name}-toggle").focus()
            page.page.keyboard.press("Enter")
            page.wait_for_focus(f"{name}-close")
            assert page.find(f"{name}-toggle").get_attribute("aria-expanded") == "true"
            for _ in range(40):
                page.page.keyboard.press("Tab")
                assert page.page.evaluate("!document.activeElement.closest('main')")
            page.page.keyboard.press("Escape")
            page.wait_for_focus(f"{name}-toggle")


def test_panels_make_room_when_the_window_becomes_narrow(page):
    page.click("settings-toggle")
    assert page.find("sidebar").is_visible() and page.find("settings").is_visible()
    page.page.set_viewport_size({"width": 900, "height": 700})
    page.find("settings").wait_for(state="detached")
    page.page.set_viewport_size({"width": 700, "height": 700})
    page.find("sidebar").wait_for(state="detached")
    page.page.set_viewport_size({"width": 1200, "height": 700})
    page.find("sidebar").wait_for()
