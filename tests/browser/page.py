"""What a person does with the page.

Nothing here waits for a time. Each wait is for something that the page shows or has done, and `PATIENCE` only ends waits for
what never comes; so tests hold on a machine that does other work at the same time.
"""

import contextlib
import json
import time
import urllib.request
import uuid


PATIENCE = 90.0  # seconds
READY = "html[data-ready=true]"
POLICY = "Content Security Policy"
SAVED = "document.documentElement.dataset.saved !== 'false'"


class Page:
    """A page, and what a person does with it."""

    def __init__(self, page, url, home=None):
        self.page = page
        self.url = url
        self.home = home or url  # of the server that it asks
        self.errors = []
        self.asked = []
        page.set_default_timeout(PATIENCE * 1000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if POLICY in message.text else None)
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, hash=""):
        self.page.goto(self.url + hash)
        self.page.wait_for_selector(READY)
        return self

    def reload(self):
        """Load the page again, when all that was to be saved is."""
        self.wait(SAVED)
        self.page.reload()
        self.page.wait_for_selector(READY)

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
        end = time.monotonic() + PATIENCE
        while not self.page.evaluate(expression, argument):
            assert time.monotonic() < end, f"never true: {expression}, {argument}"
            self.page.wait_for_timeout(15)

    def wait_for_count(self, testid, count):
        """Wait until so many of these are there."""
        self.wait(
            "([id, count]) => document.querySelectorAll(`[data-testid=${id}]`).length === count", [testid, count]
        )

    def wait_for_text(self, testid, text):
        """Wait until one of these holds a text."""
        self.wait(
            "([id, text]) => [...document.querySelectorAll(`[data-testid=${id}]`)].some((one) => one.textContent.includes(text))",
            [testid, text],
        )

    def wait_to_hear(self, text):
        """Wait until the page has told something: notices go, and what screen readers are told stays for a while."""
        self.wait_for_text("announcer", text)

    def wait_for_focus(self, testid):
        """Wait until something has the focus."""
        self.wait("id => document.activeElement.dataset.testid === id", testid)

    def wait_for_answers(self, count):
        """Wait until so many messages are there and none is being written."""
        self.wait(
            """count => document.querySelectorAll("[data-testid=message-assistant]").length === count
               && !document.querySelector("article[aria-busy=true]")""",
            count,
        )
        self.settle()

    def wait_for_end(self):
        """Wait until nothing is written and all is saved."""
        self.wait("!document.querySelector('article[aria-busy=true]')")
        self.wait(SAVED)
        self.settle()

    def ask(self, text, answers=1):
        self.send(text)
        self.wait_for_answers(answers)

    def saved(self):
        """The conversation as the server has it, after all that was to be saved."""
        self.wait(SAVED)
        chat = self.page.evaluate("location.hash.slice(1)")
        return fetch(f"{self.home}api/v1/chats/{chat}")

    def stay_clean(self):
        """Nothing failed, ran or was loaded from elsewhere."""
        assert not self.errors
        assert self.page.evaluate("window.hit") is None
        assert all(url.startswith((self.url, self.home, "blob:", "data:")) for url in self.asked), self.asked


def fetch(url, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read() or b"null")


@contextlib.contextmanager
def open_page(chromium, url, home=None, **options):
    context = chromium.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
    page = Page(context.new_page(), url, home)
    yield page
    page.stay_clean()
    context.close()


def answer_with(page, text):
    """Let the server's answer be this text."""
    chunks = [{"choices": [{"delta": {"content": text}}]}, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    page.page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=200, headers={"Content-Type": "text/event-stream"}, body=body),
    )


def answer_long(page):
    """Let the server's answers be so long that no test sees their end."""

    def lengthen(route):
        asked = json.loads(route.request.post_data)
        route.continue_(post_data=json.dumps({**asked, "max_tokens": 16384, "ignore_eos": True}))

    page.page.route("**/v1/chat/completions", lengthen)


def make_chat(**fields):
    message = {"id": str(uuid.uuid4()), "parent_id": None, "role": "user", "content": "Hello"}
    return {"id": str(uuid.uuid4()), "title": "Made", "messages": [message], "current_id": message["id"], **fields}
