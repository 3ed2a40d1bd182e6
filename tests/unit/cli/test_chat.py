"""Chat and generate in a terminal and in pipes: what ends an answer is told, and nothing that was said is lost."""

import io
import json
import sys

import pytest
from tests.conftest import build_tiny
from typer.testing import CliRunner

from small_doge.cli import chat as chat_module
from small_doge.cli.main import app
from small_doge.processor.tokenizer import build_generation_config
from small_doge.utils.errors import UserError


@pytest.fixture
def model(tmp_path, tiny_tokenizer, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    model = build_tiny(vocab_size=len(tiny_tokenizer), max_position_embeddings=64)
    model.generation_config = build_generation_config(tiny_tokenizer)
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def run(*words, input=None):
    done = CliRunner().invoke(app, words, input=input)
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done


def test_generate_says_on_standard_error_why_an_answer_ended(model):
    done = run("generate", model, "--prompt", "Ada", "--max-new-tokens", "3")
    assert "[cut off at max_new_tokens=3]" in done.stderr and "cut off" not in done.stdout
    done = run("generate", model, "--prompt", "Ada", "--max-new-tokens", "90")
    assert "the model was trained on texts of up to 64" in done.stderr or "cut off" not in done.stderr


def test_generate_writes_json_alone(model):
    schema = json.dumps({"enum": ["one"]})
    done = run("generate", model, "--prompt", "Ada", "--json-schema", schema)
    assert json.loads(done.stdout) == "one" and not done.stderr


def test_generate_fails_when_json_was_cut(model):
    schema = json.dumps({"enum": ["one"]})
    words = ("generate", model, "--prompt", "Ada", "--json-schema", schema, "--max-new-tokens", "1")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "so the JSON is not complete" in done.stderr and "Ada" not in done.stdout


def test_generate_fails_when_a_stop_text_cut_the_json(model):
    words = ("generate", model, "--prompt", "Ada", "--json-schema", json.dumps({"enum": [123]}), "--stop", "3")
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stdout) == (1, "12\n")
    assert "[cut off at the stop text '3', so the JSON is not complete]" in done.stderr


@pytest.mark.parametrize("stop", ["x", "<|end_of_text|>"])
def test_generate_succeeds_when_a_stop_text_left_the_json_whole(model, stop):
    done = run("generate", model, "--prompt", "Ada", "--json-schema", json.dumps({"enum": ["one"]}), "--stop", stop)
    assert json.loads(done.stdout) == "one" and not done.stderr


def test_chat_through_a_pipe_writes_answers_alone_to_standard_output(model, tmp_path):
    lines = f"Hello\n/help\n/system Be brief.\nAgain\n/nonsense\n/save {tmp_path / 'all.json'}\n"
    done = run("chat", model, "--max-new-tokens", "3", input=lines)
    messages = json.loads((tmp_path / "all.json").read_text())["messages"]
    assert done.stdout.endswith(messages[-1]["content"] + "\n")
    words = ("tok/s", "first after", "/help", "Started over", "Saved", "unknown", "> ")
    assert not [word for word in words if word in done.stdout]
    assert all(word in done.stderr for word in ("first after", "/help", "Started over", "Saved"))


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_wrong_options_are_refused_before_the_model_is_looked_for(command):
    done = CliRunner().invoke(app, [command, "/nowhere", "--repetition-penalty", "nan"])
    assert "repetition_penalty=nan must be a number" in str(done.exception)


@pytest.mark.parametrize("place", [".", "", "/proc/none/chat.json", "model"])
def test_saving_where_nothing_can_be_saved_keeps_the_conversation(model, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    words = ("chat", model, "--max-new-tokens", "3")
    done = run(*words, input=f"Hello\n/save {place}\nAgain\n/save kept.json\n/exit\n")
    assert "/save needs a file" in done.output or "could not write" in done.output
    said = json.loads((tmp_path / "kept.json").read_text())["messages"]
    assert [m["content"] for m in said if m["role"] == "user"] == ["Hello", "Again"]


def test_a_conversation_that_outgrows_the_model_is_cut_from_its_start_and_saved_whole(model, tmp_path):
    lines = "".join(f"Question {i}, which is rather long.\n" for i in range(4))
    done = run("chat", model, "--max-new-tokens", "4", input=f"{lines}/save {tmp_path / 'all.json'}\n")
    assert "The model no longer sees the first 2 messages: it takes 64 tokens with the answer." in done.output
    assert len(json.loads((tmp_path / "all.json").read_text())["messages"]) == 8
    prompts = [int(line.split("prompt ")[1].split()[0]) for line in done.output.splitlines() if "prompt " in line]
    assert max(prompts) <= 64 - 4


def test_a_message_that_is_longer_than_the_model_is_told(model):
    done = run("chat", model, "--max-new-tokens", "2", input="word " * 60 + "\n")
    assert "the model was made for 64 with the answer" in done.output


def test_a_failing_answer_does_not_end_the_chat(model, monkeypatch, tmp_path):
    from small_doge.inference.sampling import Sampler

    sample, calls = Sampler.sample, []

    def fail_once(self, logits):
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError("a fault")
        return sample(self, logits)

    monkeypatch.setattr(Sampler, "sample", fail_once)
    done = run("chat", model, "--max-new-tokens", "3", input=f"One\nTwo\n/save {tmp_path / 'x.json'}\n")
    assert "the answer failed: ZeroDivisionError: a fault" in done.output
    assert json.loads((tmp_path / "x.json").read_text())["messages"][0]["content"] == "Two"


def test_bytes_that_are_no_text_become_the_replacement_character(monkeypatch, messages):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9 au lait\n"), "utf-8"))
    chat_module._enable_line_editing()
    assert chat_module._read_line() == "caf\ufffd au lait"
    assert "not UTF-8" in messages.text


def test_saving_never_replaces_a_file_that_is_no_conversation(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    lines = "Hello\n/save notes.txt\n/save ~nobody-of-this-name/x\n/save kept.json\n/save kept.json\n"
    done = run("chat", model, "--max-new-tokens", "3", input=lines)
    assert (tmp_path / "notes.txt").read_text() == "mine" and "name another file" in done.output
    assert "could not write ~nobody-of-this-name/x" in done.output and done.output.count("Saved 2 messages") == 2


def test_an_interruption_before_the_answer_begins_keeps_the_conversation(model, monkeypatch, tmp_path):
    fit, calls = chat_module.Conversation._fit, []

    def interrupt_second(self):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(self)

    monkeypatch.setattr(chat_module.Conversation, "_fit", interrupt_second)
    run("chat", model, "--max-new-tokens", "3", input=f"One\nTwo\n/save {tmp_path / 'x.json'}\n")
    said = json.loads((tmp_path / "x.json").read_text())["messages"]
    assert [m["content"] for m in said if m["role"] == "user"] == ["One"]


def test_bench_shows_its_results_where_they_cannot_be_kept(model, tmp_path, monkeypatch):
    def refuse(path):
        raise UserError(f"output {path}: can't be written to; name another")

    monkeypatch.setattr("small_doge.cli.bench.check_output_path", refuse)
    words = ("bench", model, "--depths", "0", "--batch-sizes", "1", "--new-tokens", "1")
    done = run(*words)
    assert "can't be written to" in done.output and "decode" in done.output
    assert not (tmp_path / "model" / "bench.json").exists()
    named = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out")])
    assert isinstance(named.exception, UserError)  # before any work
