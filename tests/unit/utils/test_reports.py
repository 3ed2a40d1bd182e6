"""No library reports to its maker, and what the user chose stands."""

import os
import subprocess
import sys

import pytest
from tests.conftest import build_tiny

from small_doge.utils.reports import SWITCHES


def run_python(code, home, *words, **variables):
    """A process of Python whose home is empty, and which none of our variables reaches."""
    home.mkdir(exist_ok=True)
    ours = {*SWITCHES, "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "CI"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"HOME": str(home), "MPLCONFIGDIR": str(home.with_name("matplotlib")), **variables}
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


COMMANDS = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("ATTEMPT", event, arguments)

sys.addaudithook(watch)
from typer.testing import CliRunner
from small_doge.cli.main import app

model, out = sys.argv[1:]
for words, line in (
    (["export", model, "--quantize", "none", "--max-perplexity-increase", "10", "--output", out], None),
    (["generate", out, "--max-new-tokens", "2"], None),
    (["chat", out, "--max-new-tokens", "2"], "Hello"),
    (["bench", out, "--depths", "0", "--batch-sizes", "1", "--new-tokens", "1"], None),
):
    done = CliRunner().invoke(app, words, input=line)
    assert done.exit_code == 0, done.output + repr(done.exception)
"""


def test_commands_leave_nothing_in_the_home_folder_and_call_nobody(tmp_path, tiny_tokenizer):
    pytest.importorskip("onnxruntime")
    model = tmp_path / "model"
    build_tiny(vocab_size=len(tiny_tokenizer), hidden_size=32).save_pretrained(model)
    tiny_tokenizer.save_pretrained(model)
    said = run_python(COMMANDS, tmp_path / "home", str(model), str(tmp_path / "out"))
    assert "ATTEMPT" not in said
    assert list_files(tmp_path / "home") == []


SHOW = """
import small_doge, os, datasets.config, huggingface_hub.constants as hub
print(hub.HF_HUB_DISABLE_TELEMETRY, datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, os.environ["ORT_DISABLE_TELEMETRY"])
"""


def test_importing_the_package_turns_reports_off(tmp_path):
    assert run_python(SHOW, tmp_path / "home").split() == ["True", "False", "1"]


def test_what_the_user_chose_stands(tmp_path):
    chosen = {"HF_HUB_DISABLE_TELEMETRY": "0", "HF_UPDATE_DOWNLOAD_COUNTS": "1", "ORT_DISABLE_TELEMETRY": "0"}
    assert run_python(SHOW, tmp_path / "home", **chosen).split() == ["False", "True", "0"]


MAKE_TRAINER = """
import huggingface_hub.constants as hub  # before this package, so that it has read its variable already
from small_doge.trainer.on_trl import DogeOnTRL

try:
    DogeOnTRL(model=None, args=None)
except AttributeError:
    pass  # the reports are stopped before anything is made of the model
print("off" if hub.HF_HUB_DISABLE_TELEMETRY else "on")
"""


@pytest.mark.parametrize(("chosen", "expected"), [({}, "off"), ({"HF_HUB_DISABLE_TELEMETRY": "0"}, "on")])
def test_a_trainer_of_trl_reports_only_to_those_who_asked_for_it(tmp_path, chosen, expected):
    pytest.importorskip("trl")
    assert run_python(MAKE_TRAINER, tmp_path / "home", **chosen).strip() == expected
