"""Evaluation items in training data: found wherever they stand, however they are written, and nothing else."""

import gzip
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from small_doge.cli.main import app
from small_doge.evaluation.leaks import find_leaks, read_item
from small_doge.evaluation.overlaps import RUN, Item, OverlapIndex, split_words
from small_doge.processor import ft_datasets_process
from small_doge.utils.errors import UserError


LONG = {
    "id": "long",
    "question": "A farmer who keeps forty sheep on a hill sells eleven of them in spring. How many remain with him?",
    "choices": ["Twenty-nine sheep", "Fifty-one sheep"],
    "answer": 0,
}
SHORT = {"id": "short", "question": "What do bees make?", "choices": ["Sweet honey", "Grey wool"], "answer": 0}
BLANK = {"id": "blank", "question": "Ada gave Bo a _ because he was hungry.", "choices": ["loaf", "lamp"], "answer": 0}
ROWS = [LONG, SHORT, BLANK]
FILLER = "The sea was calm that day, and nobody spoke of it. "


def find(tmp_path, texts, rows=ROWS, name="rows.jsonl", **how):
    path = tmp_path / name
    content = "".join(json.dumps(t if isinstance(t, dict) else {"text": t}) + "\n" for t in texts).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return find_leaks([read_item("task", row) for row in rows], [str(path)], **how)


def names(findings):
    return [item.id for item in findings.items if item.found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (FILLER + LONG["question"] + FILLER, ["long"]),
        (LONG["question"].upper().replace(" ", "  \n").replace("?", " !"), ["long"]),
        (" ".join(LONG["question"].split()[2 : 2 + RUN]), ["long"]),
        (" ".join(LONG["question"].split()[2 : 1 + RUN]), []),
        ("Q: What do bees make?\nA: Sweet honey.", ["short"]),
        ("What do bees make? Grey wool.", []),
        ("What do bees make? " + FILLER * 8 + "Sweet honey.", []),
        ("Sweet honey is what they make. What do bees make?", ["short"]),
        ("Ada gave Bo a loaf, because he was hungry!", ["blank"]),
        ("Ada gave Bo a lamp because he was hungry.", []),
        (FILLER, []),
    ],
)
def test_items_are_found_by_their_words(tmp_path, text, found):
    assert names(find(tmp_path, [FILLER, text])) == found


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": LONG["question"]}, {"role": "assistant", "content": "29"}]},
        {"chosen": "no", "rejected": [{"content": LONG["question"]}], "prompt": "x"},
        {"a": {"b": [LONG["question"]]}},
        LONG,
    ],
)
def test_every_field_of_a_row_is_read(tmp_path, row):
    assert names(find(tmp_path, [row])) == ["long"]


def test_tokens_of_prepared_rows_are_read_as_text(tmp_path, tiny_tokenizer):
    messages = [{"role": "user", "content": LONG["question"]}, {"role": "assistant", "content": "Twenty-nine."}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    rows = ft_datasets_process.mix_datasets_by_ratio(
        [{str(tmp_path / "chats.jsonl"): 1.0}],
        processing_class=tiny_tokenizer,
        max_length=256,
        cache_dir=str(tmp_path / "cache"),
    )
    rows["train"].save_to_disk(str(tmp_path / "run" / "prepared"))
    items = [read_item("task", LONG)]
    with pytest.raises(UserError, match="name it with --tokenizer"):
        find_leaks(items, [str(tmp_path / "run" / "prepared")])
    tiny_tokenizer.save_pretrained(tmp_path / "tok")
    assert names(find_leaks(items, [str(tmp_path / "run" / "prepared")], str(tmp_path / "tok"))) == ["long"]


def test_what_stands_across_the_parts_of_a_plain_text_is_found(tmp_path):
    first, second = LONG["question"].split(" sells ")
    (tmp_path / "book.txt").write_text(FILLER * 60 + first + "\n\n" + "sells " + second + "\n\n" + FILLER * 60)
    findings = find_leaks([read_item("task", LONG)], [str(tmp_path / "book.txt")])
    assert names(findings) == ["long"] and findings.files[str(tmp_path / "book.txt")].rows > 1


def test_findings_are_counted_by_task_and_file_with_examples(tmp_path):
    half = " ".join(LONG["question"].split()[:RUN])
    findings = find(tmp_path, [FILLER, half, "What do bees make? Sweet honey."], name="rows.jsonl.gz")
    assert findings.count_by_task() == {"task": {"items": 3, "checked": 3, "found": 2, "whole": 1}}
    (by_file,) = findings.count_by_file().values()
    assert by_file["rows"] == 3 and by_file["items"] == 2 and by_file["tasks"] == {"task": 2}
    example = findings.examples["task"][0]
    assert (example.id, example.where) == ("long", "rows.jsonl.gz line 2") and "«a farmer who" in example.excerpt
    assert len(find(tmp_path, [half] * 5, num_examples=0).examples["task"]) == 0
    (item,) = (item for item in findings.items if item.id == "long")
    assert 0 < item.share < 0.5


def test_rows_that_can_not_be_read_are_counted(tmp_path):
    (tmp_path / "rows.jsonl").write_text(f"no json\n{json.dumps({'text': LONG['question']})}\n")
    findings = find_leaks([read_item("task", LONG)], [str(tmp_path / "rows.jsonl")])
    assert names(findings) == ["long"] and findings.files[str(tmp_path / "rows.jsonl")].unread == 1


def test_the_wording_of_a_task_is_no_item(tmp_path):
    asked = "Read the sentence that follows and say whether what it claims is true or false in the world: "
    rows = [{"id": str(n), "question": f"{asked}number {n} is prime", "answer": "no"} for n in range(6)]
    findings = find(tmp_path, [asked + "the sky is green"], rows)
    assert names(findings) == [] and findings.num_common > 0
    assert names(find(tmp_path, [asked + "number 3 is prime"], rows)) == ["3"]


def test_items_of_a_few_words_are_not_looked_for(tmp_path):
    few = {"id": "few", "question": "butter", "choices": ["a spread", "a stone"], "answer": 0}
    findings = find(tmp_path, ["butter is a spread"], [few, LONG])
    assert names(findings) == [] and findings.count_by_task()["task"]["checked"] == 1
    with pytest.raises(UserError, match="no item with enough words"):
        find(tmp_path, ["butter"], [few])


def test_words_are_those_of_any_script():
    assert split_words("Don't — Ｃafé №5, 你好!") == ["don", "t", "café", "no5", "你", "好"]
    question = "小明有十二个红球，他又给了小华三个，现在他还有几个红球？"
    item = read_item("task", {"id": "zh", "question": question, "answer": "九"})
    index = OverlapIndex([item])
    assert {hit.item for hit in index.find(split_words("有人问：" + question))} == {0}


def test_all_runs_are_found_where_a_plain_search_finds_them():
    random = np.random.default_rng(0)
    draw = lambda n: [str(w) for w in random.integers(0, 3, n)]  # noqa: E731
    items = [Item("task", str(n), "", draw(int(random.integers(1, 30))), draw(2)) for n in range(40)]
    index, words = OverlapIndex(items), draw(3000)
    found = {(hit.item, hit.run, hit.place) for hit in index.find(words)}
    expected = set()
    for number, item in enumerate(items):
        for run in item.runs:
            wanted = item.words[run : run + item.run_length]
            for place in range(len(words) - len(wanted) + 1):
                if words[place : place + len(wanted)] == wanted:
                    expected.add((number, run, place))
    short = {number for number, item in enumerate(items) if item.is_short and len(item.question) < 8}
    assert {hit for hit in found if hit[0] not in short} == {hit for hit in expected if hit[0] not in short}
    assert found <= expected and any(hit[0] in short for hit in found)


def test_the_command_tells_and_fails_if_asked_to(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "arc_easy_val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (LONG, SHORT)))
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": LONG["question"]}) + "\n")
    (tmp_path / "clean.jsonl").write_text(json.dumps({"text": FILLER}) + "\n")
    words = ["eval", "leaks", str(tmp_path / "train.jsonl"), "--data-root", str(root), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "arc_easy long" in done.output and "train.jsonl" in done.output and "Not looked for" in done.output
    kept = json.loads((tmp_path / "out" / "leaks.json").read_text())
    assert kept["found"] == 1 and kept["items"][0]["id"] == "long"
    assert "train.jsonl" in (tmp_path / "out" / "leaks.md").read_text()
    assert CliRunner().invoke(app, [*words, "--fail"]).exit_code == 1
    clean = ["eval", "leaks", str(tmp_path / "clean.jsonl"), "--data-root", str(root), "--fail"]
    assert CliRunner().invoke(app, clean).exit_code == 0
    named = CliRunner().invoke(app, [*clean, "--tasks", "arc_eazy"])
    assert "did you mean 'arc_easy'" in str(named.exception)
    missing = CliRunner().invoke(app, ["eval", "leaks", str(tmp_path / "clean.jsonl"), "--data-root", str(tmp_path)])
    assert "there are no data of any task" in str(missing.exception)
