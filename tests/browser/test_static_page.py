"""The page as a static folder: in headless Chromium it writes what the Python engine writes, and asks no one but its host."""

import functools
import threading
import time
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from small_doge.inference import OnnxEngine
from tests.browser.page import PATIENCE, SAVED
from tests.unit.inference.conftest import build_model


ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
MESSAGES = [{"role": "user", "content": "What is 2 + 3?"}]
OPEN = """async (size) => {
  const { openEngine } = await import("./static/engines/engine.mjs");
  const config = await (await fetch("config.json")).json();
  if (size) for (const model of config.models) model.size_bytes = size;
  window.engine = await openEngine(config);
  window.take = async (stream) => {
    const batches = [];
    for (;;) {
      const { value, done } = await stream.next();
      if (done) return { batches, ...value };
      batches.push(value);
    }
  };
  return engine.models();
}"""


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_tokenizer):
    """Exported folders: one whose window is never passed, and one that has another form of weights and cache."""
    from small_doge.inference.export import export_onnx

    folder = tmp_path_factory.mktemp("models")
    sizes = {"vocab_size": 512, "keep_window_size": 512, "num_hidden_layers": 2}
    for name, quantize, cache in (("first", "none", "float32"), ("second", "int8", "int8")):
        model = build_model(**sizes)
        export_onnx(model, tiny_tokenizer, folder / name, quantize, max_perplexity_increase=10, kv_cache_dtype=cache)
    return folder


@pytest.fixture(scope="module")
def site(models, tmp_path_factory):
    """A file server's folder, with the page in a folder of it."""
    from small_doge.webui.page_export import export_page

    root = tmp_path_factory.mktemp("site")
    export_page([str(models / "first"), str(models / "second")], root / "some" / "page")
    return root


@contextmanager
def serve(folder, headers=()):
    """Serve a folder as `python -m http.server` does; give the port."""

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self):
            for name, value in dict(headers).items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def page(chromium):
    """A page that fails its test if it asks anyone but its host, or if a script of it fails."""
    context = chromium.new_context(viewport={"width": 1000, "height": 700})
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    home = page.url.split("/some/")[0]
    context.close()
    assert asked and all(url.startswith((home, "blob:", "data:")) for url in asked)
    assert not errors


def wait(page, expression):
    """Wait until JavaScript is true."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(15)


def wait_for_end(page, count=1):
    """Wait until so many answers are there, whole and kept."""
    wait(page, f"document.querySelectorAll('[data-testid=message-assistant][aria-busy=false]').length === {count}")
    wait(page, SAVED)


def open_page(page, port, host="127.0.0.1"):
    page.goto(f"http://{host}:{port}/some/page/")
    page.wait_for_selector("html[data-ready]")
    return page


@pytest.mark.parametrize("headers", [{}, ISOLATION], ids=["one thread", "several threads"])
def test_engine_in_a_worker_does_what_the_python_engine_does(site, models, page, headers):
    python = OnnxEngine(models / "first")
    ids = python.render(MESSAGES)
    with serve(site, headers) as port:
        open_page(page, port)
        assert page.evaluate("crossOriginIsolated") is bool(headers)
        described = page.evaluate(OPEN, 30e6 if headers else None)  # small models use one thread
        asked = {"model": "first", "messages": MESSAGES, "sampling": {"max_tokens": 24, "seed": None}}
        answer = page.evaluate("(request) => take(engine.chat(request))", asked)
        again = page.evaluate("(request) => take(engine.chat(request))", asked)
        rest = {"model": "first", "promptIds": ids, "sampling": {"max_tokens": 3}, "top": 4}
        written = page.evaluate("(request) => take(engine.complete(request))", rest)
        cut = page.evaluate("(request) => engine.tokenize(request)", {"model": "first", "messages": MESSAGES})
        inspected = page.evaluate("(request) => engine.inspect(request)", {"model": "first", "tokens": ids, "top": 2})
    assert [(model["id"], model["can_chat"], model["num_layers"]) for model in described] == [
        ("first", True, 2),
        ("second", True, 2),
    ]
    request = python.submit(ids, max_new_tokens=24)
    tokens = list(python.follow(request))
    assert "".join(batch["text"] for batch in answer["batches"]) == "".join(token.text for token in tokens)
    assert [id for batch in answer["batches"] for id in batch["tokenIds"]] == [token.id for token in tokens]
    assert answer["finishReason"] == request.finish_reason
    counts = {"prompt_tokens": len(ids), "completion_tokens": len(tokens), "cached_tokens": 0}
    assert answer["usage"] == counts and again["usage"]["cached_tokens"] == len(ids) - 1
    expected = list(python.stream_tokens(ids, max_new_tokens=3, logprobs=4))
    found = [token for batch in written["batches"] for token in batch]
    assert [token["id"] for token in found] == [token.id for token in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["logprob"] == pytest.approx(theirs.logprob, abs=1e-3)
        assert [one["id"] for one in ours["top"]] == list(theirs.top_logprobs)
        assert [one["text"] for one in ours["top"]] == [python.piece(id) for id in theirs.top_logprobs]
    assert [token["id"] for token in cut["tokens"]] == ids and cut["max_length"] is None
    assert [token["id"] for token in inspected["tokens"]] == ids
    assert inspected["kept"][0][0]["positions"] == list(range(len(ids)))


def test_engine_stops_when_asked_and_names_what_is_wrong(site, page):
    with serve(site) as port:
        open_page(page, port)
        page.evaluate(OPEN)
        long = {"model": "first", "messages": MESSAGES, "sampling": {"max_tokens": 100_000, "ignore_eos": True}}
        stopped = page.evaluate(
            """async (request) => {
              const stop = new AbortController();
              const stream = engine.chat({ ...request, signal: stop.signal });
              await stream.next();
              const other = take(engine.chat({ ...request, model: "second", sampling: { max_tokens: 2 } }));
              stop.abort();
              return [await take(stream), await other, await take(engine.chat({ ...request, signal: stop.signal }))];
            }""",
            long,
        )
        errors = page.evaluate(
            """async (request) => Promise.all([{ model: "third" }, { sampling: { temprature: 1 } }, { messages: [] , continueFinal: true }].map(
              (change) => take(engine.chat({ ...request, ...change })).then(() => null, (error) => error.message)))""",
            long,
        )
        after = page.evaluate("(request) => take(engine.chat(request))", {**long, "sampling": {"max_tokens": 2}})
    assert [answer["finishReason"] for answer in stopped] == ["aborted", "length", "aborted"]
    assert stopped[0]["usage"]["completion_tokens"] < 10_000
    assert "first, second" in errors[0] and "temprature" in errors[1] and "continueFinal" in errors[2]
    assert after["usage"]["completion_tokens"] == 2


LONG = {"model": "first", "messages": MESSAGES, "sampling": {"max_tokens": 100_000, "ignore_eos": True}}


@pytest.mark.parametrize("second", ["first", "second"])
def test_two_answers_are_written_at_once(site, page, second):
    page.add_init_script("Object.defineProperty(navigator, 'hardwareConcurrency', { value: 2 })")
    with serve(site) as port:
        open_page(page, port)
        page.evaluate(OPEN)
        found = page.evaluate(
            """async ([request, second]) => {
              const stop = new AbortController();
              const stream = engine.chat({ ...request, signal: stop.signal });
              await stream.next();
              const reasons = [];
              const short = { ...request, model: second, sampling: { max_tokens: 3 }, onWait: (reason) => reasons.push(reason) };
              const other = await take(engine.chat(short));
              const goesOn = !(await stream.next()).done;
              stop.abort();
              await take(stream);
              const loaded = (await engine.models()).filter((model) => model.loaded).map((model) => model.id);
              return { other, goesOn, reasons, loaded };
            }""",
            [LONG, second],
        )
    assert found["other"]["finishReason"] == "length" and found["goesOn"]
    assert found["reasons"] == [None] and found["loaded"] == sorted({"first", second})


@pytest.mark.parametrize(
    ("property", "value", "reason"),
    [("hardwareConcurrency", 1, "one processor core"), ("deviceMemory", 0.0001, "too little memory")],
)
def test_an_answer_waits_where_the_device_lacks_room_and_the_page_says_so(site, page, property, value, reason):
    page.add_init_script("Object.defineProperty(navigator, 'hardwareConcurrency', { value: 2, configurable: true })")
    page.add_init_script(f"Object.defineProperty(navigator, '{property}', {{ value: {value}, configurable: true }})")
    with serve(site) as port:
        open_page(page, port)
        page.evaluate("""() => {
          window.seen = "";
          const look = () => document.querySelectorAll("[data-testid=column-1] [data-testid=figures]").forEach((one) => (seen += one.textContent));
          new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
        }""")
        page.get_by_test_id("compare").click()
        page.get_by_test_id("composer").fill("Hello")
        page.get_by_test_id("composer").press("Enter")
        wait_for_end(page, 2)
        assert f"Waits until the other answer is written: this device has {reason}" in page.evaluate("seen")


def test_engine_tells_how_far_a_download_is_and_loads_again_after_a_failure(site, page):
    with serve(site) as port:
        open_page(page, port)
        page.route("**/second/tokenizer.json", lambda route: route.fulfill(status=200, body="{"))
        page.evaluate(OPEN)
        ask = """async () => {
          window.heard = [];
          engine.addEventListener("progress", ({ detail }) => heard.push(detail));
          return engine.tokenize({ model: "second", content: "Ada" }).then((found) => found.count, (error) => error.message);
        }"""
        failed = page.evaluate(ask)
        page.unroute("**/second/tokenizer.json")
        assert "second could not be loaded" in failed
        assert page.evaluate(ask) > 0
        last = page.evaluate("heard.at(-1)")
        size = (site / "some" / "page" / "models" / "second" / "model.onnx").stat().st_size
        assert last == {"model": "second", "loaded": size, "total": size}


def test_what_waits_for_a_download_is_stopped_at_once_and_the_download_goes_on(site, page):
    with serve(site) as port:
        open_page(page, port)
        held = []
        page.context.route("**/model.onnx", lambda route: held.append(route))
        page.get_by_test_id("composer").fill("Hello")
        page.get_by_test_id("send").click()
        wait(page, "document.querySelector('article[aria-busy=true]')")
        while not held:
            page.wait_for_timeout(15)
        page.get_by_test_id("stop").click()
        wait(page, "!document.querySelector('article[aria-busy=true]')")
        assert not page.get_by_test_id("error").count()
        page.get_by_test_id("answer").click()
        held[0].continue_()
        wait_for_end(page)
        assert len(held) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "doge.test"], ids=["secure", "plain HTTP"])
def test_page_chats_without_a_server(site, models, page, host):
    with serve(site) as port:
        open_page(page, port, host)
        assert page.evaluate("isSecureContext") is (host == "127.0.0.1")
        page.get_by_test_id("composer").fill(MESSAGES[0]["content"])
        page.get_by_test_id("send").click()
        wait_for_end(page)
        answer = page.get_by_test_id("message-assistant")
        assert "token" in answer.get_by_test_id("figures").inner_text() and not page.get_by_test_id("error").count()
        page.reload()
        page.get_by_test_id("chat-item").first.click()
        page.get_by_test_id("message-assistant").wait_for()


def test_raw_text_is_continued_and_looked_into_without_a_server(site, page):
    with serve(site) as port:
        open_page(page, port)
        page.get_by_test_id("mode-raw").click()
        page.get_by_test_id("raw-text").fill("Ada lives in")
        page.get_by_test_id("raw-continue").click()
        page.get_by_test_id("token").first.wait_for(state="attached")
        page.get_by_test_id("raw-continue").wait_for()
        page.get_by_test_id("inside-toggle").click()
        page.get_by_test_id("strip").wait_for()
        assert page.get_by_test_id("kept").count() > 3 and not page.get_by_test_id("error").count()


def test_page_opened_as_a_file_says_that_it_must_be_served(site, chromium):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(next(site.rglob("index.html")).as_uri())
    page.get_by_text("python -m http.server").wait_for()
    context.close()
