import json

import pytest
from datasets import load_from_disk
from typer.testing import CliRunner

from small_doge.cli.data import parse_shares
from small_doge.cli.main import app
from small_doge.utils.errors import UserError


@pytest.fixture
def run(monkeypatch, tmp_path, tiny_tokenizer):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    tiny_tokenizer.save_pretrained(tmp_path / "tok")
    rows = [
        {"messages": [{"role": "user", "content": f"Ask {i}"}, {"role": "assistant", "content": f"Say {i}"}]}
        for i in range(40)
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")

    def call(*words, check=True):
        result = CliRunner().invoke(app, ["data", *words])
        if check:
            assert result.exit_code == 0, result.output + repr(result.exception)
        return result

    return call


def test_the_catalogue_is_listed_with_licences(run):
    shown = run("list").output
    assert (
        "fineweb-edu" in shown
        and "ODC-BY" in shown
        and "OpenR1-Math-220k" in shown
        and "SMALL_DOGE_DATA_ROOT" in shown
    )


def test_a_mix_is_prepared_shown_and_counted(run, tmp_path):
    shown = run(
        *[
            "prepare",
            "--data",
            "chats.jsonl",
            "--stage",
            "sft",
            "--output",
            "out",
            "--test-size",
            "4",
            "--max-length",
            "64",
            "--tokenizer",
            "tok",
        ]
    ).output
    assert "1 failed" in shown and "rows: 36" in shown
    splits = load_from_disk(tmp_path / "out")
    assert len(splits["train"]) == 36 and len(splits["test"]) == 4
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.json", "failed_rows.jsonl", "statistics.png", "tokenizer"} <= names
    assert not (tmp_path / ".out.work").exists()
    facts = json.loads(run("stats", "out", "--json").output)
    assert facts["rows"] == 36 and 0 < facts["sources"]["chats.jsonl"]["learnt"] < facts["tokens"]
    shown = run("inspect", "out", "--rows", "1").output
    assert "<|start_header_id|>assistant<|end_header_id|>" in shown and "<|eot_id|>" in shown


@pytest.mark.parametrize(("extra", "marked"), [((), True), (("--no-apply-thinking-template",), False)])
def test_thoughts_are_marked_for_distillation_unless_that_is_turned_off(run, tmp_path, extra, marked):
    rows = [{"question": f"{i} + 1?", "rationale": "I add.", "final": str(i + 1)} for i in range(20)]
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--data", "traces.jsonl", "--tokenizer", "tok", "--max-length", "64", "--thinking-tags", "<a>,</a>")
    run("prepare", "--stage", "distill", "--output", "out", *words, *extra)
    shown = run("inspect", "out", "--rows", "1").output
    assert ("<a>" in shown and "</a>" in shown) == marked and "I add." in shown


@pytest.mark.parametrize(("extra", "turns"), [((), False), (("--chat-turns",), True)])
def test_answered_prompts_become_chat_turns_when_asked_for(run, tmp_path, extra, turns):
    rows = [{"prompt": f"Write about {i}", "text": f"About {i}."} for i in range(20)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("prepare", "--data", "texts.jsonl", "--output", "out", "--tokenizer", "tok", "--max-length", "64", *extra)
    assert ("<|start_header_id|>user" in run("inspect", "out", "--rows", "1").output) == turns


def test_data_that_are_not_prepared_are_shown_as_a_stage_would_prepare_them(run):
    shown = run("inspect", "chats.jsonl", "--stage", "sft", "--tokenizer", "tok", "--rows", "2").output
    assert shown.count("<|begin_of_text|>") == 2


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "not prepared"])
def test_a_split_that_is_not_there_is_refused_with_those_that_are(run, prepared):
    if prepared:
        run("prepare", "--data", "chats.jsonl", "--stage", "sft", "--output", "out", "--tokenizer", "tok")
    words = ("inspect", "out" if prepared else "chats.jsonl", "--stage", "sft", "--tokenizer", "tok")
    result = run(*words, "--split", "test", check=False)
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith("--split test: ") and "holds train" in str(result.exception)


def test_the_mask_is_coloured(run, tiny_tokenizer):
    from small_doge.processor.inspection import split_segments

    row = {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, 7, 8, -100], "seq_lengths": [5]}
    (segments,) = split_segments(row, tiny_tokenizer)
    assert [segment.kind for segment in segments] == ["context", "learnt", "context"]
    assert "".join(segment.text for segment in segments) == tiny_tokenizer.decode(row["input_ids"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("prepare --data chats.jsonl=x --output o --tokenizer tok", "'x' is not a ratio; write NAME=0.5"),
        (
            "prepare --data chats.jsonl=0.5 --data b --output o --tokenizer tok",
            "give a ratio for every name, or for none",
        ),
        ("prepare --data chats.jsonl --output o --tokenizer nowhere", "no tokenizer could be loaded"),
        (
            "prepare --data chats.jsonl --output o --tokenizer tok --stage stf",
            "unknown stage 'stf'; did you mean 'sft'",
        ),
        (
            "prepare --data chat.jsonl --output o --tokenizer tok",
            "there is no file or folder chat.jsonl; did you mean chats.jsonl?",
        ),
        ("prepare --data chats.jsonl --output o --tokenizer tok --thinking-tags a", "or <think>,</think> on the"),
        ("prepare --data chats.jsonl --output o --tokenizer tok --stage sft --no-chat-turns", "as the chat template"),
        ("stats .", "is not a prepared data set"),
    ],
)
def test_bad_input_is_told(run, words, message):
    result = run(*words.split(), check=False)
    assert result.exit_code != 0 and message in str(result.exception)
    assert isinstance(result.exception, (UserError, ValueError))


def test_names_alone_share_equally():
    assert parse_shares(["a", "b"]) == [{"a": 0.5}, {"b": 0.5}]
    assert parse_shares(["embedded:world=0.7", "x=0.3"]) == [{"embedded:world": 0.7}, {"x": 0.3}]
