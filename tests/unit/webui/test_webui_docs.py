"""What the guide shows of services, containers and Gradio names options and functions that exist."""

import ast
import json
import re
import shlex
from pathlib import Path

from openai import OpenAI
from tests.unit.test_docs import blocks, check_small_doge


ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "webui.md"


def test_the_unit_and_the_container_use_options_that_exist():
    (unit,) = blocks(GUIDE, "ini")
    (image,) = blocks(GUIDE, "dockerfile")
    command = shlex.split(re.search(r"ExecStart=(.*)", unit)[1])
    assert Path(command[0]).name == "small-doge"
    check_small_doge(command[1:])
    command = json.loads(re.search(r"^CMD (.*)", image, flags=re.MULTILINE)[1])
    assert command[0] == "small-doge"
    check_small_doge(command[1:])


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
