"""The page's modules without a browser: trees, thoughts, imports, saving, answers that fail, models that load."""

import json
import shutil

import pytest

from tests.browser.node import CORE, run


pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")


def test_branches_of_a_tree_are_found_also_where_it_is_damaged():
    code = """
    const message = (id, parent_id, role) => ({ id, parent_id, role });
    const messages = [message("a", null, "user"), message("b", "a", "assistant"), message("c", "a", "assistant"),
      message("d", "b", "user"), message("e", "f", "user"), message("f", "e", "user")];
    const found = {
      path: tree.pathTo(messages, "d").map(({ id }) => id),
      siblings: tree.siblingsOf(messages, messages[1]).map(({ id }) => id),
      leaves: [tree.newestLeaf(messages, "b"), tree.newestLeaf(messages, "a"), tree.newestLeaf(messages, "e")],
      ring: tree.pathTo(messages, "f").map(({ id }) => id),
      none: tree.pathTo(messages, "nowhere"),
      title: tree.titleOf("  A  question\\nwith more".padEnd(90, "x")),
    };"""
    found = run(["tree"], code)
    assert found["path"] == ["a", "b", "d"] and found["siblings"] == ["b", "c"] and found["none"] == []
    assert found["leaves"] == ["d", "c", "e"] and found["ring"] == ["e", "f"]
    assert found["title"] == "A question"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("said", [("said", "said", False)]),
        ("<think>hm</think>said", [("thought", "hm", False), ("said", "said", False)]),
        ("<think>hm", [("thought", "hm", True)]),
        ("<think>\n</think>said", [("said", "said", False)]),
        ("a</think>b", [("said", "a</think>b", False)]),
        (
            "a<think>b</think>c<think>d",
            [("said", "a", False), ("thought", "b", False), ("said", "c", False), ("thought", "d", True)],
        ),
        ("", []),
    ],
)
def test_thoughts_are_told_from_what_is_said(text, expected):
    found = run(["thinking"], f"const found = thinking.splitThinking({json.dumps(text)});")
    assert [(part["kind"], part["text"], part["open"]) for part in found] == expected


def test_imports_are_cut_to_what_is_known_and_ids_are_made_where_they_are_none():
    chat = {
        "title": "t" * 900,
        "tags": ["a", 7, "b" * 200],
        "pinned": "yes",
        "unknown": {"x": 1},
        "current_id": "no. 2",
        "messages": [
            {"id": "no. 1", "role": "user", "content": "Hi", "evil": True},
            {"id": "no. 2", "parent_id": "no. 1", "role": "assistant", "content": "Hello", "created_at": "never"},
        ],
    }
    (found,) = run(["transfer"], f"const found = transfer.readExport({json.dumps(json.dumps(chat))}).chats;")
    assert len(found["title"]) == 200 and found["pinned"] is False and "unknown" not in found
    assert found["tags"] == ["a", "b" * 64]
    one, two = found["messages"]
    assert two["parent_id"] == one["id"] and found["current_id"] == two["id"] and len(one["id"]) == 36
    assert "evil" not in one and two["created_at"].endswith("Z")


def test_presets_of_a_file_are_cut_to_what_is_known():
    given = [
        {"name": " Mine ", "system_prompt": 7, "sampling": {"temperature": 99, "top_k": "x", "evil": 1}, "evil": 1},
        {"name": "Balanced"},  # is built in
        {"name": ""},
        None,
    ]
    text = json.dumps(json.dumps({"chats": [], "presets": given}))
    found = run(["transfer"], f"const found = transfer.readExport({text});")
    assert found["chats"] == [] and [preset["name"] for preset in found["presets"]] == ["Mine"]
    (preset,) = found["presets"]
    assert set(preset) == {"name", "system_prompt", "sampling"} and preset["system_prompt"] == ""
    assert (
        preset["sampling"]["temperature"] == 2
        and preset["sampling"]["top_k"] == 0
        and "evil" not in preset["sampling"]
    )


def test_markdown_holds_the_branch_that_is_shown():
    chat = {
        "title": "Chat",
        "model": "doge",
        "system_prompt": "Be brief.",
        "current_id": "c",
        "messages": [
            {"id": "a", "parent_id": None, "role": "user", "content": "Hi"},
            {"id": "b", "parent_id": "a", "role": "assistant", "content": "Not shown"},
            {"id": "c", "parent_id": "a", "role": "assistant", "content": "Hello", "model": "doge"},
        ],
    }
    found = run(["transfer"], f"const found = transfer.toMarkdown({json.dumps(chat)});")
    assert (
        found.index("Be brief.") < found.index("## You\n\nHi") < found.index("## doge\n\nHello")
        and "Not shown" not in found
    )


SAVER = """
const asked = [];
const note = (name) => async () => void asked.push(name);
const store = Object.fromEntries(["create", "append", "change", "changeMessage", "remove"].map((name) => [name, note(name)]));
store.load = async () => null;
const told = [];
const showNotice = (text, label, action) => told.push({ text, action });
const app = { store, talk: { streams: new Map(), stop() {} }, library: { refreshSoon() {} }, say() {}, showNotice, chat: {} };
app.saver = new saver.Saver(app);
const chat = { id: "a", messages: [{ id: "m", content: "Hi" }], current_id: "m", settings: {} };
"""


def test_a_deleted_conversation_does_not_come_back_with_the_answer_that_was_being_written():
    code = """
    app.saver.saveMessages(chat, chat.messages);
    const list = new library.Library(app);
    list.remove({ id: "a" });
    app.saver.saveMessages(chat, chat.messages);
    app.saver.saveAll(chat);
    app.saver.save(chat, () => store.changeMessage());
    await app.saver.queue;
    app.saver.keep("a"); // it was imported again
    app.saver.saveMessages(chat, chat.messages);
    await app.saver.queue;
    const found = asked;"""
    assert run(["../saver", "../library"], SAVER + code) == ["create", "remove", "append"]


def test_a_conversation_that_could_not_be_deleted_is_still_saved_and_deleted_later():
    code = """
    app.saver.keep("a");
    const { remove } = store;
    store.remove = async () => { throw new Error("no connection"); };
    await app.saver.remove(chat);
    await app.saver.saveMessages(chat, chat.messages);
    store.remove = remove;
    await told[0].action();
    const found = { asked, text: told[0].text };"""
    assert run(["../saver"], SAVER + code) == {"asked": ["append", "remove"], "text": "Not saved: no connection"}


def test_an_answer_of_a_column_that_was_closed_fails_with_its_reason():
    code = """
    const engine = { async *chat() { delete chat.settings.compare; throw new Error("broken"); } };
    const quiet = { changed() {}, tell() {}, say() {}, canChat: () => true, contextOf: () => 10, watchModels: () => () => {} };
    const chat = { id: "c", model: "one", system_prompt: "", current_id: "q",
      settings: { compare: { model: "two", current_id: "q" } }, messages: [{ id: "q", parent_id: null, role: "user", content: "Hi" }] };
    const talking = new talk.Talk({ ...quiet, engine, chat });
    await talking.answer(chat, 1);
    const found = { errors: [...talking.errors], streams: talking.streams.size, count: chat.messages.length };"""
    assert run(["../talk"], code) == {"errors": [["q", "broken"]], "streams": 0, "count": 1}


def test_a_change_of_a_conversation_that_another_tab_deleted_is_an_error():
    code = """
    const store = local.createStore();
    store.chats = async () => ({ get: () => {
      const request = {};
      setTimeout(() => request.onsuccess());
      return request;
    } });
    const why = (promise) => promise.then(() => null, (error) => error.message);
    const found = [await why(store.append("a", [], null)), await why(store.change("a", { title: "x" }))];"""
    assert all("deleted" in (message or "") for message in run(["../stores/local"], code))


def test_model_of_the_browser_is_loaded_when_its_worker_says_so_and_one_that_failed_does_not_count():
    code = """
    document.baseURI = "http://127.0.0.1/";
    Object.defineProperty(globalThis, "navigator", { value: { hardwareConcurrency: 2, deviceMemory: 1 } });
    const workers = [];
    globalThis.Worker = class {
      constructor() { workers.push(this); this.sent = []; }
      addEventListener(name, hear) { if (name === "message") this.hear = (data) => hear({ data }); }
      postMessage(data) { this.sent.push(data); }
    };
    const [big, small] = [{ id: "big", path: "b", size_bytes: 2 ** 30 }, { id: "small", path: "s", size_bytes: 1 }];
    const engine = browser.createEngine({ models: [big, small] });
    const loaded = async () => (await engine.models()).filter((model) => model.loaded).map(({ id }) => id);
    const turn = () => new Promise((done) => setTimeout(done));
    const failing = engine.tokenize({ model: "big" }).catch(({ message }) => message);
    await turn();
    const coming = await loaded();
    workers[0].hear({ id: 1, error: "no room" });
    const why = await failing;
    engine.tokenize({ model: "small" });
    await turn();
    workers[0].hear({ loaded: ["small"] });
    const then = await loaded();
    engine.tokenize({ model: "small" });
    await turn();
    const found = { coming, why, then, workers: workers.length };"""
    found = run(["../engines/browser"], code)
    assert found == {"coming": [], "why": "no room", "then": ["small"], "workers": 2}


def test_ids_that_the_server_allows_are_kept_so_that_a_second_import_finds_them():
    chats = [
        {"id": name, "messages": [{"id": "m", "role": "user", "content": "Hi"}]} for name in ("a", "export", "b/c")
    ]
    found = run(["transfer"], f"const found = transfer.readExport({json.dumps(json.dumps(chats))}).chats;")
    assert found[0]["id"] == "a" and found[0]["messages"][0]["id"] == "m" and found[0]["current_id"] == "m"
    assert all(len(chat["id"]) == 36 for chat in found[1:])


def test_presets_that_an_import_leaves_out_are_counted_and_long_names_kept():
    names = ["x" * 300, "Balanced", "", "..", "A\u00a0b\u200d"]
    text = json.dumps(json.dumps({"presets": [{"name": name} for name in names]}))
    found = run(["transfer"], f"const found = transfer.readExport({text});")
    assert [preset["name"] for preset in found["presets"]] == ["x" * 300, "A b"] and found["dropped"] == 3


def test_presets_of_an_earlier_page_move_one_by_one_and_none_is_lost():
    code = """
    const old = [{ name: "Same" }, { name: "Mine", system_prompt: "b" }, { name: "Bad" }, { name: "Balanced" },
      { name: "A\\u00a0b \\u{1f469}\\u200d\\u{1f373}" }];
    const kept = { "small-doge.presets": JSON.stringify(old) };
    globalThis.localStorage = { getItem: (key) => kept[key] ?? null, setItem: (key, value) => (kept[key] = value), removeItem: (key) => delete kept[key] };
    const has = [{ name: "Same", system_prompt: "" }, { name: "Mine", system_prompt: "a" }];
    const moved = [];
    globalThis.fetch = async (url, { method }) => {
      if (method === "GET") return Response.json({ presets: has });
      const name = decodeURIComponent(url.pathname.split("/").at(-1));
      if (name === "Bad") return Response.json({ error: { message: "refused" } }, { status: 400 });
      moved.push(name);
      return Response.json({});
    };
    const store = (await import(SERVER_STORE)).createStore();
    const names = (await store.listPresets()).map(({ name }) => name);
    const found = { names, moved, unmoved: store.unmoved, kept: JSON.parse(kept["small-doge.presets"]).map(({ name }) => name) };"""
    where = json.dumps((CORE.parent / "stores" / "server.mjs").as_uri())
    found = run([], code.replace("SERVER_STORE", where))
    assert found["moved"] == ["Mine 2", "A b \U0001f469\U0001f373"]
    assert found["names"] == ["Same", "Mine", *found["moved"]] and found["kept"] == ["Bad", "Balanced"]
    assert "refused" in found["unmoved"][0] and "Balanced" in found["unmoved"][1]


@pytest.mark.parametrize("text", ["1. " * 4000, "> 1. " * 3000, ">" * 20000], ids=["list", "both", "quotes"])
def test_an_answer_nested_too_deeply_for_markdown_is_shown_as_the_letters_that_it_is(text):
    found = run(["markdown"], f"const found = markdown.toBlocks({json.dumps(text + '<b>')});")
    assert len(found) == 1 and found[0].count("1.") == text.count("1.") and "&lt;b&gt;" in found[0]
    assert run(["markdown"], 'const found = markdown.toBlocks("**bold**");') == ["<p><strong>bold</strong></p>\n"]


def test_texts_are_cut_between_letters_and_not_within_one():
    face = "\U0001f600"
    given = {
        "title": "t" * 199 + face * 2,
        "tags": ["b" * 63 + face * 2],
        "messages": [{"role": "user", "content": "Hi"}],
    }
    preset = {"name": "Mine", "system_prompt": "p" * 99_999 + face * 2}
    text = json.dumps(json.dumps({"chats": [given], "presets": [preset]}))
    code = f"""
    const {{ chats: [chat], presets: [preset] }} = transfer.readExport({text});
    const title = tree.titleOf("a".repeat(56) + "{face}".repeat(9));
    const whole = tree.titleOf("{face}".repeat(60));
    const found = {{ title, whole, chat, prompt: preset.system_prompt }};"""
    found = run(["transfer", "tree"], code)
    assert found["title"] == "a" * 56 + face + "…" and found["whole"] == face * 60
    assert found["chat"]["title"] == "t" * 199 + face and found["chat"]["tags"] == ["b" * 63 + face]
    assert found["prompt"] == "p" * 99_999 + face


TALK = """
const told = [];
const quiet = { changed() {}, tell: (text) => told.push(text), say() {}, canChat: () => true, contextOf: () => 10,
  watchModels: () => () => {}, saver: { saveMessages() {}, save() {} } };
const message = (id, parent_id, role) => ({ id, parent_id, role, content: id, model: "one" });
const chat = { id: "c", model: "one", system_prompt: "", current_id: "d", settings: {},
  messages: [message("a", null, "user"), message("b", "a", "assistant"), message("c", "b", "user"), message("d", "c", "assistant")] };
"""


@pytest.mark.parametrize("end", ['return { finishReason: "aborted", usage: null };', 'throw new Error("broken");'])
def test_an_earlier_answer_is_shown_again_if_another_one_ends_before_its_first_word(end):
    code = f"""
    const engine = {{ async *chat() {{ {end} }} }};
    const talking = new talk.Talk({{ ...quiet, engine, chat }});
    await talking.regenerate(0, chat.messages[1]);
    const found = {{ shown: chat.current_id, count: chat.messages.length, errors: [...talking.errors.keys()] }};"""
    found = run(["../talk"], TALK + code)
    assert found == {"shown": "d", "count": 4, "errors": ["a"] if "throw" in end else []}


def test_an_edit_is_not_taken_while_an_answer_is_written_and_it_is_said_why():
    code = """
    const talking = new talk.Talk({ ...quiet, chat, engine: { async *chat() { return { finishReason: "stop", usage: null }; } } });
    talking.streams.set("d", { chat });
    const during = talking.edit(0, chat.messages[3], "Other words");
    talking.streams.clear();
    const found = { during, told, after: talking.edit(0, chat.messages[3], "Other words"), count: chat.messages.length };"""
    assert run(["../talk"], TALK + code) == {
        "during": False,
        "told": ["Stop the answer first."],
        "after": True,
        "count": 5,
    }
