"""What the guide shows of settings, services, containers and Gradio is what there is."""

import ast
import inspect
import re
import shlex
from pathlib import Path

from openai import OpenAI
from tests.settings_table import make_table, put_table
from tests.unit.test_docs import blocks, check_small_doge

from small_doge.cli.serve import serve
from small_doge.webui.settings import ENVIRONMENT, ServeSettings, read_settings_file


ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "webui.md"
HOSTING = ROOT / "docs" / "hosting.md"


def test_the_unit_uses_options_that_exist():
    (unit,) = blocks(HOSTING, "ini")
    command = shlex.split(re.search(r"ExecStart=(.*)", unit)[1])
    assert Path(command[0]).name == "small-doge"
    check_small_doge(command[1:])


def test_the_table_of_settings_is_that_of_the_program():
    text = GUIDE.read_text(encoding="utf-8")
    assert text == put_table(text), "a setting has changed; run: make links"
    for name in ENVIRONMENT:
        assert f"| `{name}` |" in make_table()
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(serve).parameters}
    told = set(re.findall(r"`(--[a-z-]+)`", make_table()))
    named_otherwise = {"--backend-only", "--frontend-only"}
    assert told - named_otherwise <= options
    hidden = {f"--{side}-{part}" for side in ("backend", "frontend") for part in ("host", "port")}
    fields = {"--no-page", "--page-only"}
    assert options - told == {"--models", "--config", "--dev", *hidden, *fields, "--typer-context"}


def test_the_settings_file_of_the_guide_is_read(tmp_path):
    (example,) = [block for block in blocks(GUIDE, "yaml") if "memory-budget" in block]
    (tmp_path / "serve.yaml").write_text(example)
    settings = ServeSettings(**read_settings_file(tmp_path / "serve.yaml"))
    assert (settings.models[0], settings.port, settings.memory_budget) == ("runs/demo/grpo", 8080, 2)
    assert settings.sampling.temperature == 0.7


def test_the_gradio_example_uses_what_the_client_has():
    tree = ast.parse((ROOT / "examples" / "gradio_chat.py").read_text(encoding="utf-8"))
    client = OpenAI(base_url="http://127.0.0.1:1/v1", api_key="none")
    used = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    paths = {name for name in used if name.startswith("client.")}
    assert paths == {"client.models.list", "client.chat.completions.create"}
    for path in paths:
        target = client
        for name in path.split(".")[1:]:
            target = getattr(target, name)
        assert callable(target)
