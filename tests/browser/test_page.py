"""The page in headless Chromium, against the server and its tiny models."""

import contextlib
import json
import re
import time
import urllib.request
import uuid

import pytest


READY = "html[data-ready=true]"
SAVED = "document.documentElement.dataset.saved !== 'false'"
ATTACKS = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<svg onload='window.hit = 1'></svg>",
    "[click](javascript:window.hit=1)",
    "![picture](http://192.0.2.1/leak.png)",
    "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "$\\href{javascript:window.hit=1}{x}$ and $\\includegraphics{http://192.0.2.1/leak.png}$",
    '```"><img src=x onerror="window.hit=1">\ncode\n```',
    "<style>* { display: none }</style><form action='http://192.0.2.1/'><input name=a></form>",
    "| a |\n|---|\n| <a href='data:text/html,<script>1</script>'>x</a> |",
]


class Page:
    """What a person does with the page."""

    def __init__(self, page, url):
        self.page = page
        self.url = url
        self.errors = []
        self.asked = []
        page.set_default_timeout(6_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, hash=""):
        self.page.goto(self.url + hash)
        self.page.wait_for_selector(READY)
        return self

    def find(self, testid):
        return self.page.get_by_test_id(testid)

    def click(self, testid, number=0):
        self.find(testid).nth(number).click()
        self.settle()

    def settle(self):
        """Wait until the page has drawn what was done: it draws once a frame."""
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
        )

    def open_menu(self):
        """Open the menu of the conversation that is shown, in the list."""
        self.page.locator(".chat-item.open").get_by_test_id("chat-menu").click()

    def set(self, **fields):
        """Set sampling fields."""
        self.click("settings-toggle")
        for name, value in fields.items():
            self.find(f"field-{name}").fill(str(value))
            self.find(f"field-{name}").blur()
        self.click("settings-close")

    def send(self, text):
        self.find("composer").fill(text)
        self.find("composer").press("Enter")

    def wait(self, expression, argument=None):
        """Wait until JavaScript is true. Playwright's own way evaluates text in the page, which the page's policy forbids."""
        end = time.monotonic() + 8
        while not self.page.evaluate(expression, argument):
            assert time.monotonic() < end, f"never true: {expression}, {argument}"
            self.page.wait_for_timeout(15)

    def wait_for_answers(self, count):
        """Wait until so many messages are there and none is being written."""
        self.wait(
            """count => document.querySelectorAll("[data-testid=message-assistant]").length === count
               && !document.querySelector("article[aria-busy=true]")""",
            count,
        )
        self.settle()

    def ask(self, text, answers=1):
        self.send(text)
        self.wait_for_answers(answers)

    def saved(self):
        """The conversation as the server has it, after all that was to be saved."""
        self.wait(SAVED)
        chat = self.page.evaluate("location.hash.slice(1)")
        return fetch(f"{self.url}api/v1/chats/{chat}")

    def stay_clean(self):
        """Nothing failed, ran or was loaded from elsewhere."""
        assert not self.errors
        assert self.page.evaluate("window.hit") is None
        assert all(url.startswith((self.url, "blob:", "data:")) for url in self.asked), self.asked


def fetch(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read() or b"null")


@contextlib.contextmanager
def open_page(chromium, url, **options):
    context = chromium.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
    page = Page(context.new_page(), url)
    yield page
    page.stay_clean()
    context.close()


@pytest.fixture
def page(chromium, server):
    with open_page(chromium, server) as page:
        yield page.open()


def answer_with(page, text):
    """Let the server's answer be this text."""
    chunks = [{"choices": [{"delta": {"content": text}}]}, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    page.page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=200, headers={"Content-Type": "text/event-stream"}, body=body),
    )


def make_chat(**fields):
    message = {"id": str(uuid.uuid4()), "parent_id": None, "role": "user", "content": "Hello"}
    return {"id": str(uuid.uuid4()), "title": "Made", "messages": [message], "current_id": message["id"], **fields}


# Conversations.


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
    assert page.page.evaluate("window.lengths.size") >= 2
    assert re.search(r"2000 tokens · [0-9]+ tokens/s · first after [0-9]+ ms", page.find("figures").inner_text())
    assert "tokens" in page.find("context").inner_text()
    saved = page.saved()
    asked = {"model": "first", "messages": [{"role": "user", "content": "What is 2 + 3?"}], "temperature": 0}
    expected = fetch(f"{page.url}v1/chat/completions", {**asked, "max_tokens": 2000})
    assert saved["messages"][1]["content"] == expected["choices"][0]["message"]["content"]
    assert saved["title"] == "What is 2 + 3?" and saved["messages"][1]["stats"]["completion_tokens"] == 2000


def test_stop_keeps_what_was_written_and_what_is_being_typed(page):
    page.set(max_tokens=4096, temperature=0)
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
    page.wait("!document.querySelector('article[aria-busy=true]')")
    page.settle()
    saved = page.saved()
    for _ in range(50):  # it is saved after it is shown
        if len(saved["messages"][1]["content"]) > len(start):
            break
        page.page.wait_for_timeout(100)
        saved = page.saved()
    assert len(saved["messages"]) == 2
    assert saved["messages"][1]["content"].startswith(start) and len(saved["messages"][1]["content"]) > len(start)


def test_continuing_an_answer_that_is_whole_says_so_and_keeps_its_figures(page):
    page.set(max_tokens=5, temperature=0)
    page.ask("A question")
    before = page.saved()["messages"][1]
    figures = page.find("figures").inner_text()
    answer_with(page, "")
    page.click("continue")
    page.page.get_by_text("The model has nothing to add").wait_for()
    assert page.find("figures").inner_text() == figures and page.saved()["messages"][1] == before


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
    page.page.get_by_text(re.compile(r"Preparing the model first … 2 s\. A checkpoint is exported")).wait_for()
    page.page.unroute("**/v1/models")
    page.page.get_by_text(re.compile("waiting [3-9] s")).wait_for()
    waiting[0].continue_()
    page.wait_for_answers(1)
    assert page.find("figures").inner_text().startswith("1 token ·")


def test_reload_finds_the_conversation_and_the_branch_becomes_another_one(page):
    page.set(max_tokens=5)
    page.find("settings-toggle").click()
    page.find("system-prompt").fill("Be brief.")
    page.find("preset").select_option("Precise")
    page.find("system-prompt").fill("Be brief.")
    page.click("settings-close")
    page.ask("Find me again")
    before = page.find("message-assistant").get_by_test_id("content").inner_text()
    page.saved()
    page.page.reload()
    page.page.wait_for_selector(READY)
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
    page.page.reload()
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


# The list of conversations.


def test_conversations_are_searched_renamed_sorted_pinned_and_deleted(page):
    page.set(max_tokens=3)
    word = f"needle{uuid.uuid4().hex[:6]}"
    page.ask(f"Where is the {word}?")
    page.saved()
    page.click("new-chat")
    page.ask("Something else")
    page.saved()
    page.find("search").fill(word)
    page.wait("document.querySelectorAll('[data-testid=chat-item]').length === 1")
    page.click("chat-menu")
    page.click("rename")
    page.find("details-title").fill("Renamed")
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
    page.wait("document.querySelectorAll('[data-testid=chat-item]').length === 0")
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
    page.page.get_by_text("1 imported").wait_for()
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
    page.page.get_by_text(re.compile(f"Not imported: .*{message}")).wait_for()


# Markdown and safety.


def test_markdown_code_maths_and_thoughts_are_shown(page):
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    answer_with(
        page,
        "<think>Let me see</think>\n**bold**\n\n```python\ndef f():\n    return 1\n```\n\n$x^2$ and \\[\\frac{1}{2}\\]",
    )
    page.ask("Show all")
    content = page.find("message-assistant").get_by_test_id("content")
    content.locator(".hljs-keyword").first.wait_for()
    content.locator(".katex-display").wait_for()
    assert content.locator("strong").inner_text() == "bold"
    assert content.locator(".katex").count() >= 2 and content.locator(".katex-display").count() == 1
    assert not content.get_by_text("Let me see").is_visible()
    content.get_by_text("Thoughts").click()
    assert content.get_by_text("Let me see").is_visible()
    content.get_by_test_id("copy-code").click()
    page.page.get_by_text("Copied").wait_for()
    assert page.page.evaluate("navigator.clipboard.readText()") == "def f():\n    return 1"


def test_nothing_that_a_model_or_a_file_says_runs_or_loads(page, tmp_path):
    answer_with(page, "\n\n".join(ATTACKS))
    page.ask("Attack")
    attack = " ".join(ATTACKS)
    messages = [{"role": role, "content": text} for text in ATTACKS for role in ("user", "assistant")]
    for message, parent in zip(messages, [None, *messages], strict=False):
        message.update(id=str(uuid.uuid4()), parent_id=parent and parent["id"], model=attack)
    chat = make_chat(
        title=attack, messages=messages, current_id=messages[-1]["id"], tags=[attack], folder=attack[:90], model=attack
    )
    (tmp_path / "attack.json").write_text(json.dumps({"chats": [chat]}))
    page.find("import-file").set_input_files(tmp_path / "attack.json")
    page.page.get_by_text("1 imported").wait_for()
    page.open(f"#{chat['id']}")
    page.wait_for_answers(len(ATTACKS))
    page.page.wait_for_timeout(200)
    found = page.page.evaluate("""() => [...document.querySelectorAll(
      "article script, article img, article iframe, article style, article form, article svg[onload], [onerror]")].length""")
    assert found == 0
    links = page.page.eval_on_selector_all("article a", "links => links.map((link) => link.getAttribute('href'))")
    assert all(link is None or link.startswith("http") for link in links)
    fetch_delete(f"{page.url}api/v1/chats/{chat['id']}")


def fetch_delete(url):
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE")).close()


# Raw text.


def test_raw_text_shows_probabilities_and_goes_on_from_another_token(page):
    page.find("model-0").select_option("base")
    page.find("base-note").wait_for()  # a base model opens as raw text by itself
    page.set(max_tokens=12, temperature=0)
    page.find("raw-text").fill("Ada lives in")
    page.find("raw-text").press("Control+Enter")
    page.wait("document.querySelectorAll('[data-testid=token]').length === 12")
    page.find("raw-continue").wait_for()
    first = page.find("raw-text").input_value()
    assert first.startswith("Ada lives in") and len(first) > len("Ada lives in")
    shown = page.find("token").evaluate_all(
        "spans => spans.filter((s) => getComputedStyle(s).backgroundColor !== 'rgba(0, 0, 0, 0)').length"
    )
    assert shown == 12
    number = page.find("token").evaluate_all("spans => spans.findIndex((span) => /\\S/.test(span.textContent))")
    box = page.find("token").nth(number).bounding_box()
    page.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.find("choice").nth(9).wait_for()
    assert page.find("choice").count() == 10
    page.click("choice", 1)
    page.wait("n => document.querySelectorAll('[data-testid=token]').length === n", number + 13)
    page.find("raw-continue").wait_for()
    second = page.find("raw-text").input_value()
    assert second != first
    page.find("raw-text").press("Control+z")
    page.wait("text => document.getElementById('raw-text').value === text", first)
    page.click("raw-redo")
    page.wait("text => document.getElementById('raw-text').value === text", second)
    page.saved()
    page.page.reload()
    page.wait("n => document.querySelectorAll('[data-testid=token]').length === n", number + 13)
    assert page.find("raw-text").input_value() == second


def test_the_strip_shows_what_a_head_keeps(page):
    page.click("mode-raw")
    page.set(max_tokens=60, temperature=0)
    page.find("raw-text").fill("Ada lives in")
    page.click("raw-continue")
    page.wait("document.querySelectorAll('[data-testid=token]').length >= 58")
    page.find("raw-continue").wait_for()
    page.click("inside-toggle")
    page.find("inside").wait_for()
    assert page.find("kept").count() == 24 and page.find("gone").count() > 20  # keep_window_size
    titles = page.find("kept").evaluate_all("items => items.map((item) => item.title)")
    assert all("kept, score" in title for title in titles)
    page.find("layer").select_option(index=1)
    page.find("head").select_option(index=1)
    page.wait(
        "old => JSON.stringify(old) !== "
        "JSON.stringify([...document.querySelectorAll('[data-testid=kept]')].map((item) => item.title))",
        titles,
    )


# Phones, keys, colours, faults.


def test_a_phone_shows_everything_without_scrolling_sideways(chromium, server):
    with open_page(chromium, server, viewport={"width": 360, "height": 640}, has_touch=True) as page:
        page.open().set(max_tokens=20)

        def check():
            assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
            wide = page.page.evaluate("""() => [...document.querySelectorAll("button, select, textarea, article")]
              .filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > 361).map((e) => e.outerHTML.slice(0, 200))""")
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
          .filter((e) => e.getBoundingClientRect().right > 360 || e.matches(".raw-scroll") && e.scrollWidth > e.clientWidth)
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
    page.page.wait_for_timeout(100)
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


def test_the_key_is_asked_for_and_kept_for_the_tab(chromium, models, tmp_path):
    from tests.webui import run_app

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
        page.page.reload()
        page.wait_for_answers(1)


def test_an_answer_can_be_looked_into_as_raw_text(page):
    page.set(max_tokens=10, temperature=0)
    page.ask("Where does Ada live?")
    answer = page.saved()["messages"][1]["content"]
    page.click("look-inside")
    page.wait("document.querySelector('[data-testid=raw-text]')?.value.includes('Where does Ada live?')")
    text = page.find("raw-text").input_value()
    assert text.startswith("<|begin_of_text|>") and text.endswith(answer)


def test_what_is_typed_is_there_after_a_reload(page):
    page.find("composer").fill("Not sent yet")
    page.page.reload()
    page.page.wait_for_selector(READY)
    assert page.find("composer").input_value() == "Not sent yet"
