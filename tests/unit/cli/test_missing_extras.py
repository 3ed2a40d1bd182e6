"""Each command names what to install when its extra is missing, and the base install runs those that need none."""

import json
import shlex
import subprocess
import sys

import pytest
import typer.main
from tests.conftest import build_tiny

from small_doge.cli import main as module
from small_doge.utils import extras


# A call of each command that needs an extra, and the extra.
NEED_AN_EXTRA = {
    "demo": "train",
    "pipeline --recipe recipes --output out": "train",
    "plan --config recipe.yaml": "train",
    "tune batch-size --config recipe.yaml": "train",
    "tune lr --config recipe.yaml": "train",
    "train pretrain": "train",
    "train sft": "train",
    "train dpo": "train",
    "train distill": "train",
    "train grpo": "train",
    "train settings": "train",
    "tokenizer train --output out --data texts.jsonl": "data",
    "data list": "data",
    "data download smoltalk": "data",
    "data prepare --data texts.jsonl --output out": "data",
    "data inspect out": "data",
    "data stats out": "data",
    "data clean texts.jsonl --output out": "scale",
    "serve model": "serve",
    "webui export model out": "export",
    "export model": "export",
    "export model --format hf --texts texts.jsonl": "data",
    "eval model": "eval",
    "eval run model": "eval",
    "eval compare first second": "eval",
    "eval prompts": "eval",
    "eval leaks texts.jsonl": "eval",
    "eval perplexity model texts.txt": "data",
    "report model": "data",
    "card recipes --output cards": "train",
    "bench model": "plots",
}
NEED_NONE = {"env", "generate", "chat", "upcycle", "tokenizer inspect"}


def list_commands(command, words=()):
    """Every command and command of a group that is not hidden."""
    for name, sub in getattr(command, "commands", {}).items():
        if not sub.hidden:
            yield from list_commands(sub, (*words, name))
    if not hasattr(command, "commands"):
        yield " ".join(words)


def test_it_is_known_of_every_command_which_extra_it_needs():
    known = [*NEED_AN_EXTRA, *NEED_NONE]
    for name in list_commands(typer.main.get_command(module.app)):
        assert any(f"{call} ".startswith(f"{name} ") for call in known), name


@pytest.mark.parametrize(("call", "extra"), NEED_AN_EXTRA.items())
def test_a_command_whose_extra_is_missing_names_the_install(call, extra, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["small-doge", *shlex.split(call)])
    with pytest.raises(SystemExit) as end:
        module.main()
    told = capsys.readouterr().err
    assert end.value.code == 1 and told.count("\n") == 1
    assert f"not installed; run: pip install 'small-doge[{extra}]'" in told


def test_base_install_generates_chats_and_upcycles(tmp_path, tiny_tokenizer):
    model = tmp_path / "model"
    build_tiny(vocab_size=512).save_pretrained(model)
    tiny_tokenizer.save_pretrained(model)
    commands = [
        ["generate", str(model), "--prompt", "Ada", "--max-new-tokens", "3"],
        ["chat", str(model), "--max-new-tokens", "3"],
        ["upcycle", str(model), "-o", str(tmp_path / "moe"), "--num-experts", "16", "--num-experts-per-tok", "2"],
        ["tokenizer", "inspect", str(model), "--text", "Ada"],
        ["export", str(model), "--format", "hf", "-o", str(tmp_path / "hf")],
        ["env"],
    ]
    python = [sys.executable, "-m", "tests.base_install", json.dumps(commands)]
    done = subprocess.run(python, input="hello\n", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Ada" in done.stdout and (tmp_path / "moe" / "config.json").is_file()
    assert (tmp_path / "hf" / "config.json").is_file()
    assert "which is slower: exporting needs onnx" in done.stderr and "small-doge[export]" in done.stderr
