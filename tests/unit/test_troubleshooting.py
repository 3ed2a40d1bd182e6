"""The messages that the documents quote are those that the program prints."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "troubleshooting.md"
QUOTED = re.findall(r"^#### `(.*)`$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
VALUE = "…"  # stands for what a message fills in


def read_text(node):
    """The text of a string, with a mark for each value that is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(read_text(part) if isinstance(part, ast.Constant) else VALUE for part in node.values)


@cache
def list_texts():
    texts = set()
    for path in (ROOT / "src" / "small_doge").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                texts.add(" ".join(re.sub(r"%[sd]", VALUE, read_text(node)).split()))
    return texts


@pytest.mark.parametrize("message", QUOTED)
def test_the_message_is_in_the_program(message):
    assert any(message in text for text in list_texts()), f"no message of the program reads so: {message}"


def test_each_message_is_quoted_once_and_has_a_remedy():
    assert len(set(QUOTED)) == len(QUOTED) > 30
    text = GUIDE.read_text(encoding="utf-8")
    for part in re.split(r"^#### ", text, flags=re.MULTILINE)[1:]:
        assert len(part.split("\n", 1)[1].split("\n## ")[0].strip()) > 40, part


def test_a_message_that_nobody_prints_is_told():
    assert not any("there is no message that reads like this" in text for text in list_texts())
