"""The guide's example of OpenAI's client runs, and its tables name every route."""

import re

import httpx
from tests.unit.test_docs import ROOT, blocks


GUIDE = ROOT / "docs" / "api.md"
PAGE = ROOT / "docs" / "webui.md"


def test_example_runs(server, capsys):
    (example,) = [block for block in blocks(GUIDE, "python") if "from openai import OpenAI" in block]
    exec(compile(example.replace("http://127.0.0.1:8000", server), str(GUIDE), "exec"), {})
    written = capsys.readouterr().out
    assert "None" in written  # the first token of the scored text
    assert re.search(r'\{"colour":"(red|blue)"\}', written)


def test_guide_names_every_route(server):
    text = GUIDE.read_text(encoding="utf-8") + PAGE.read_text(encoding="utf-8")
    for path in httpx.get(f"{server}/openapi.json").json()["paths"]:
        stem = re.sub(r"/?\{.*", "", path)
        assert re.search(rf"`(GET |POST )?{re.escape(stem)}[`/?]", text), path


def test_table_names_every_field():
    from small_doge.webui.routes.bodies import SamplingBody
    from small_doge.webui.routes.openai_chat import ChatBody
    from small_doge.webui.routes.openai_completions import CompletionBody
    from small_doge.webui.routes.openai_embeddings import EmbeddingBody
    from small_doge.webui.routes.responses_input import ResponseBody

    section = GUIDE.read_text(encoding="utf-8").split("## OpenAI's API")[1].split("\n## ")[0]
    for path, body in (
        ("chat/completions", ChatBody),
        ("completions", CompletionBody),
        ("embeddings", EmbeddingBody),
        ("responses", ResponseBody),
    ):
        row = re.search(rf"^\| `/v1/{path}` \|(.*)\|(.*)\|$", section, flags=re.MULTILINE)
        further = section[section.index("Further options") :]
        for name in body.model_fields.keys() - SamplingBody.model_fields.keys() - {"model"}:
            assert re.search(rf"`{name}\b", row[0] + further), f"{path}: {name}"
        for name in body.unsupported:
            assert re.search(rf"`{name}\b", row[2]), f"{path}: {name}"
