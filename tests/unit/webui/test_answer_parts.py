"""Thinking, text and calls of tools in an answer, whatever pieces it comes in."""

import pytest

from small_doge.inference import Token
from small_doge.webui.answer_parts import AnswerReader


CALL = '{"name": "add", "arguments": {"a": 2}}'


def read(pieces, with_thinking=True, with_tools=True):
    reader = AnswerReader(with_thinking, with_tools)
    parts = [part for piece in pieces for part in reader.read([Token(id=0, text=piece)])] + reader.finish()
    thought = "".join(part.text for part in parts if part.is_thinking)
    said = "".join(part.text for part in parts if not part.is_thinking)
    assert all(part.text for part in parts)
    assert [part.is_thinking for part in parts] == sorted((part.is_thinking for part in parts), reverse=True)
    return thought, said, [call.name for call in reader.calls]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("text", "thought", "said", "calls"),
    [
        ("Hello.", "", "Hello.", []),
        ("<think>So </thin> it is.</think>\n\nHello <think>.", "So </thin> it is.", "Hello <think>.", []),
        ("\n<think></think>Hello.", "", "Hello.", []),
        ("<think>So it is.</th", "So it is.</th", "", []),
        ("<thin", "", "<thin", []),
        ("Think <think>no</think>", "", "Think <think>no</think>", []),
        (f"<think>Add.</think>\n\n{CALL}", "Add.", "", ["add"]),
        (f"Well: {CALL}{CALL}", "", "Well: ", ["add", "add"]),
        ('Well: {"name": "ad', "", 'Well: {"name": "ad', []),
        ("", "", "", []),
    ],
)
def test_parts_are_told_apart(size, text, thought, said, calls):
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert read(pieces) == (thought, said, calls)


def test_what_is_not_asked_for_stays_text():
    text = f"<think>Add.</think>\n\n{CALL}"
    assert read([text], with_thinking=False, with_tools=False) == ("", text, [])
