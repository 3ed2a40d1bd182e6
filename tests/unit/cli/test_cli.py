import json
import re
import sys

import pytest
from tests.conftest import build_tiny
from typer.testing import CliRunner

from small_doge.cli import main as module
from small_doge.cli.env import missing_for_extras
from small_doge.utils.errors import UserError
from small_doge.utils.paths import find_tiny_recipes, resolve_model


runner = CliRunner()


def invoke(*words):
    return runner.invoke(module.app, list(words))


def test_help_shows_the_whole_journey():
    text = invoke("--help").output
    assert all(
        name in text
        for name in ("env", "demo", "tokenizer", "train", "generate", "chat", "export", "bench", "upcycle")
    )


def test_env_shows_versions_machine_and_extras():
    text = invoke("env").output
    assert all(word in text for word in ("torch", "transformers", "cores", "memory", "deepspeed", "cuda"))
    assert set(missing_for_extras()) >= {"cuda", "deepspeed", "trackers", "dev"}


def test_settings_are_the_help_of_the_fields():
    from small_doge.trainer.arguments import DataArguments

    text = " ".join(invoke("train", "settings").output.replace("│", " ").split())
    assert "model_preset" in text and "min_lr_ratio" in text
    assert DataArguments.__dataclass_fields__["max_length"].metadata["help"] in text


def test_tokenizer_is_trained_and_inspected(tmp_path):
    data = tmp_path / "a.jsonl"
    data.write_text('{"text": "red balls and blue balls"}\n' * 30)
    done = invoke("tokenizer", "train", "--output", str(tmp_path / "tok"), "--data", str(data), "--vocab-size", "280")
    assert done.exit_code == 0, done.output
    shown = invoke("tokenizer", "inspect", str(tmp_path / "tok"), "--text", "red balls").output
    assert "<|finetune_right_pad_id|>" in shown and "bytes per token" in shown
    assert re.search(r"^this text in \d+ tokens: red balls$", shown, flags=re.MULTILINE)
    assert "a conversation in the chat template:" in shown


def test_a_tokenizer_made_of_another_keeps_its_digits_and_takes_a_length(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "old")
    (tmp_path / "a.txt").write_text("red balls and blue balls\n" * 30)
    words = ["--base", str(tmp_path / "old"), "--data", str(tmp_path / "a.txt"), "--vocab-size", "280"]
    done = invoke("tokenizer", "train", "--output", str(tmp_path / "new"), *words, "--max-length", "999")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())["model_max_length"] == 999
    done = invoke("tokenizer", "train", "--output", str(tmp_path / "other"), *words, "--max-digits", "3")
    assert "max_digits=3 has no effect with a base" in str(done.exception)


def test_generate_and_upcycle_work_on_a_folder(tmp_path, tiny_tokenizer):
    build_tiny(vocab_size=512).save_pretrained(tmp_path / "dense")
    tiny_tokenizer.save_pretrained(tmp_path / "dense")
    done = invoke("generate", str(tmp_path / "dense"), "--prompt", "Ada", "--max-new-tokens", "3")
    assert done.exit_code == 0 and "Ada" in done.output
    done = invoke(
        "upcycle",
        str(tmp_path / "dense"),
        "-o",
        str(tmp_path / "moe"),
        "--num-experts",
        "16",
        "--num-experts-per-tok",
        "2",
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "moe" / "tokenizer.json").exists()
    again = invoke("generate", str(tmp_path / "moe"), "--prompt", "Ada", "--max-new-tokens", "3")
    assert again.exit_code == 0 and "Ada" in again.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "pt", "--config", "nowhere.yaml"], "there is no such file"),
        (["train", "pt", "--lerning_rate", "3"], "did you mean 'learning_rate'"),
        (["upcycle", "nowhere/at/all", "-o", "x"], "nowhere/at/all"),
    ],
)
def test_bad_input_gives_one_message_and_no_traceback(monkeypatch, capsys, words, message):
    monkeypatch.setattr("sys.argv", ["small-doge", *words])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 1
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown


def test_the_newest_finished_stage_is_used_when_none_is_named(tmp_path):
    with pytest.raises(UserError, match="small-doge demo"):
        resolve_model(None, tmp_path)
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "finished.json").write_text("{}")
    assert resolve_model(None, tmp_path) == str(tmp_path / "pretrain")
    assert resolve_model("mine", tmp_path) == "mine"


def test_tiny_recipes_are_found():
    assert (find_tiny_recipes() / "pretrain.yaml").exists()


def test_bytes_that_are_no_text_are_refused_with_the_remedy(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["small-doge", "generate", "--prompt", "caf\udce9"])
    with pytest.raises(SystemExit):
        module.main()
    assert r"the argument b'caf\xe9' is not UTF-8; set the terminal to UTF-8" in capsys.readouterr().err
