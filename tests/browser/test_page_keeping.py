"""What the page keeps, without a browser: saving again, what is typed, raw text of another model, what is opened last."""

import shutil

import pytest

from tests.browser.node import run


pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")

# The page's state over a store of this memory. `fails` makes the store refuse changes.
STATE = """
const table = new Map();
let fails = false;
const done = (result) => {
  const request = { result };
  setTimeout(() => request.onsuccess());
  return request;
};
const store = local.createStore();
store.chats = async (mode) => {
  if (fails && mode === "readwrite") throw new Error("no room");
  return {
    get: (id) => done(structuredClone(table.get(id))),
    getAll: () => done([...table.values()]),
    put: (chat) => done(void table.set(chat.id, structuredClone(chat))),
    delete: (id) => done(void table.delete(id)),
  };
};
const sent = [];
let wait = null; // a promise that tokenizing waits for
let hold = null; // and one that writing does, after a token
// Tokens are characters; their ids are those of the model.
const idOf = (letter, model) => letter.codePointAt(0) + (model === "other" ? 1000 : 0);
const engine = {
  models: async () => [{ id: "first" }, { id: "other" }],
  async tokenize({ model, content }) {
    await wait;
    return { tokens: [...content].map((letter) => ({ id: idOf(letter, model), piece: letter })) };
  },
  async *complete({ model, promptIds, signal }) {
    if (signal.aborted) return { finishReason: "aborted" };
    sent.push({ model, promptIds });
    for (const letter of "xyz") {
      yield [{ id: idOf(letter, model), text: letter, logprob: -1, top: [] }];
      await hold;
    }
    return { finishReason: signal.aborted ? "aborted" : "length" };
  },
};
const app = new state.App({ config: {}, engine, store, draw() {} });
app.models = await engine.models();
app.newChat();
const turn = (milliseconds = 5) => new Promise((go) => setTimeout(go, milliseconds));
const message = (id, parent_id, role = "user") => ({ id, parent_id, role, content: id, model: null, stats: null });
const make = (id, messages) => ({ id, title: id, model: "first", tags: [], pinned: false, archived: false, settings: {},
  system_prompt: "", created_at: "2020-01-01", updated_at: "2020-01-01", messages, current_id: messages.at(-1)?.id ?? null });
const warns = () => app.hasUnsaved;
const text = (id) => table.get(id)?.messages[0].content;
"""
MODULES = ["../state", "../stores/local"]


def run_state(code):
    return run(MODULES, STATE + code)


def test_saving_again_leaves_what_another_tab_added():
    code = """
    table.set("a", make("a", [message("q", null), message("w", "q", "assistant")]));
    await app.open("a");
    fails = true;
    app.chat.messages[1].content = "gone on with";
    app.chat.messages.push(message("mine", "w"));
    app.chat.current_id = "mine";
    app.chat.system_prompt = "Be brief.";
    await app.saver.saveMessages(app.chat, [app.chat.messages[2]]);
    fails = false;
    table.set("a", { ...make("a", [...table.get("a").messages, message("theirs", "w")]), title: "Renamed there" });
    app.notice.action();
    await app.saver.queue;
    const found = table.get("a");"""
    found = run_state(code)
    assert [message["id"] for message in found["messages"]] == ["q", "w", "theirs", "mine"]
    assert found["messages"][1]["content"] == "gone on with" and found["system_prompt"] == "Be brief."
    assert found["current_id"] == "mine" and found["title"] == "Renamed there" and found["created_at"] == "2020-01-01"


def test_what_could_not_be_saved_is_offered_after_other_notices_and_warned_of_until_it_is_saved():
    code = """
    const found = {};
    table.set("a", make("a", [message("q", null)]));
    table.set("b", make("b", [message("r", null)]));
    await app.open("a");
    fails = true;
    const chat = app.chat;
    chat.messages.push(message("mine", "q"));
    chat.current_id = "mine";
    await app.saver.saveMessages(chat, [chat.messages[1]]);
    app.library.change(app.library.chats[0] ?? { ...chat }, { pinned: true });
    await app.saver.queue;
    found.failed = warns();
    app.tell("Archived.", "Undo", () => {}, 20);
    found.other = app.notice.text;
    app.closeNotice();
    found.again = app.notice.label;
    app.closeNotice();
    found.closed = [app.notice, warns()];
    await app.open("b");
    await app.open("a"); // the object that holds what is not saved
    found.back = app.chat.messages.length;
    app.tell("Other.");
    app.closeNotice();
    app.notice.action();
    await app.saver.queue;
    found.still = [app.notice.label, warns()];
    fails = false;
    app.closeNotice();
    app.saver.saveAgain();
    await app.saver.queue;
    found.saved = [app.notice, warns(), table.get("a").messages.length, table.get("a").pinned];"""
    assert run_state(code) == {
        "failed": True,
        "other": "Archived.",
        "again": "Save again",
        "closed": [None, True],
        "back": 2,
        "still": ["Save again", True],
        "saved": [None, False, 2, True],
    }


def test_raw_text_has_the_tokens_of_its_model_after_an_undo_a_reload_and_a_change_while_it_is_written():
    code = """
    const found = {};
    const isOf = (model) => sent.at(-1).model === model && sent.at(-1).promptIds.every((id) => id >= 1000 === (model === "other"));
    app.setMode("raw");
    app.raw.type("ab");
    await app.raw.goOn();
    await app.raw.goOn();
    app.setModel(0, "other");
    app.raw.undo();
    await app.raw.goOn();
    found.undo = [sent.at(-1).promptIds.length, isOf("other")];
    app.raw.redo();
    app.setModel(0, "first");
    await app.saver.queue;
    const id = app.chat.id;
    app.newChat();
    await app.open(id);
    await app.raw.goOn();
    found.reload = isOf("first");
    await app.saver.queue;
    const old = structuredClone(table.get(id));
    table.set(id, { ...old, model: "other" }); // as an earlier version of the page kept it
    app.newChat();
    await app.open(id);
    await app.raw.goOn();
    found.old = isOf("other");
    let go;
    for (const isTokenizing of [true, false]) {
      if (isTokenizing) app.raw.type(app.raw.text + "c");
      const gate = new Promise((end) => (go = end));
      if (isTokenizing) wait = gate;
      else hold = gate;
      const before = app.raw.text;
      const writing = app.raw.goOn();
      await turn();
      app.setModel(0, isTokenizing ? "first" : "other");
      wait = hold = null;
      go();
      await writing;
      found[isTokenizing ? "tokenizing" : "writing"] = app.raw.text === before + (isTokenizing ? "" : "x");
      await app.raw.goOn();
      found[`${isTokenizing ? "tokenizing" : "writing"} then`] = isOf(isTokenizing ? "first" : "other");
    }"""
    found = run_state(code)
    assert found.pop("undo") == [5, True]
    assert found and all(found.values()), found


def test_raw_text_can_be_stopped_while_the_model_is_prepared():
    code = """
    app.setMode("raw");
    app.raw.type("ab");
    let go;
    wait = new Promise((end) => (go = end));
    const writing = app.raw.goOn();
    await turn();
    app.raw.stop();
    await writing;
    const stopped = [app.raw.isWriting, app.raw.error, sent.length];
    const again = app.raw.goOn();
    go();
    await again;
    const found = [...stopped, app.raw.text];"""
    assert run_state(code) == [False, None, 0, "abxyz"]


def test_typing_while_a_raw_text_is_looked_at_is_not_undone():
    code = """
    app.setMode("raw");
    app.raw.type("ab");
    let go;
    wait = new Promise((end) => (go = end));
    const looking = app.raw.look();
    await turn();
    app.raw.type("abc");
    go();
    await looking;
    const found = [app.raw.text, app.raw.error];"""
    assert run_state(code) == ["abc", None]


def test_what_is_typed_is_saved_while_it_is_typed_and_when_another_conversation_is_opened():
    code = """
    const found = {};
    table.set("chat", make("chat", [message("q", null)]));
    table.set("raw", { ...make("raw", [message("m", null, "assistant")]), settings: { mode: "raw" } });
    await app.open("raw");
    for (let n = 0; n < 12; n++) { // without a pause of a second
      app.raw.type(`letters${n}`);
      await turn(120);
    }
    found.meanwhile = text("raw");
    app.raw.type("left at once");
    found.warned = warns();
    await app.open("chat");
    await app.open("raw");
    found.back = [app.raw.text, text("raw")];
    app.raw.type("and by a new one");
    app.newChat();
    await app.saver.queue;
    found.left = text("raw");
    await app.open("chat");
    app.chat.system_prompt = "Be brief.";
    app.saver.saveFieldSoon(app.chat, "system_prompt");
    found.warnedOfPrompt = warns();
    app.newChat();
    await app.saver.queue;
    found.prompt = table.get("chat").system_prompt;
    found.calm = warns();"""
    found = run_state(code)
    assert found.pop("meanwhile").startswith("letters")
    assert found == {
        "warned": True,
        "back": ["left at once", "left at once"],
        "left": "and by a new one",
        "warnedOfPrompt": True,
        "prompt": "Be brief.",
        "calm": False,
    }


def test_raw_text_that_is_left_while_it_is_written_comes_back_with_all_that_was_written():
    code = """
    table.set("chat", make("chat", [message("q", null)]));
    table.set("raw", { ...make("raw", [message("m", null, "assistant")]), settings: { mode: "raw" } });
    await app.open("raw");
    let go;
    hold = new Promise((end) => (go = end));
    app.raw.goOn();
    await turn();
    await app.open("chat");
    await app.open("raw");
    const shown = app.raw.text;
    app.raw.type("changed since");
    app.newChat();
    go();
    await turn();
    await app.saver.queue;
    const found = [shown, text("raw")];"""
    assert run_state(code) == ["mx", "changed since"]


def test_what_was_opened_last_is_shown_however_long_an_earlier_one_takes():
    code = """
    for (const id of ["slow", "fast"]) table.set(id, make(id, [message("q", null)]));
    const { load } = store;
    store.load = async (id) => {
      if (id === "slow") await turn(30);
      return load.call(store, id);
    };
    const found = [];
    app.open("slow");
    await app.open("fast");
    await turn(60);
    found.push(app.chat.id);
    app.open("slow");
    await turn();
    app.newChat();
    const id = app.chat.id;
    await turn(60);
    found.push(app.chat.id === id);
    store.load = async () => {
      await turn(30);
      throw new Error("no connection");
    };
    app.open("slow");
    await turn();
    app.newChat();
    await turn(60);
    found.push(app.notice);
    await app.open("fast").catch(() => {});
    found.push(app.notice.text);
    app.engine.tokenize = async () => {
      await turn(30);
      return { tokens: [] };
    };
    app.chat = make("c", [message("q", null), message("w", "q", "assistant")]);
    app.lookInside("w");
    app.newChat();
    await turn(60);
    found.push(app.chat.settings.mode);"""
    assert run_state(code) == ["fast", True, None, "no connection", "chat"]


def test_branch_of_an_old_conversation_is_new_and_an_address_that_names_none_is_said():
    code = """
    table.set("old", make("old", [message("q", null)]));
    await app.open("old");
    app.branchChat("q");
    await app.saver.queue;
    const { created_at: created, updated_at: updated } = table.get(app.chat.id);
    location.hash = "#%";
    await app.openFromHash();
    const found = [created > "2021", updated > "2021", app.notice.text];"""
    assert run_state(code) == [True, True, "This conversation is not here; it may have been deleted."]


def test_a_list_that_was_asked_for_before_a_change_does_not_undo_it():
    code = """
    table.set("a", make("a", [message("q", null)]));
    await app.library.refresh();
    const refreshing = app.library.refresh();
    await turn(0);
    app.library.change(app.library.chats[0], { pinned: true });
    await refreshing;
    const found = app.library.chats[0].pinned;"""
    assert run_state(code) is True
