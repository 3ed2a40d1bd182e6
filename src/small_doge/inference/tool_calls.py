"""Calls of tools: grammars that make a model write them rightly, and the calls in what it wrote.

The form is that of the project's chat template (`processor/chat_template.py`), on which models are trained: text, if any,
and then one JSON object for each call, `{"name": "add", "arguments": {"a": 2}}`, without anything between them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message
from .grammars import COMPACT, check_cost


BEGIN = '{"name":'
MAX_CALLS = 16  # of one answer: a small model would go on calling until its tokens are spent
NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
# As chat templates write JSON.
WRITTEN = {**COMPACT, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool that a model wrote.

    Attributes:
        name: of the tool.
        arguments: a mapping, as JSON text.
    """

    name: str
    arguments: str


def build_tool_grammar(
    tools: Sequence[Mapping[str, Any]], choice: str = "auto", parallel_tool_calls: bool = True
) -> str | None:
    """Build the grammar of an answer that may call tools, for `SamplingOptions.grammar`.

    Args:
        tools: definitions of functions in OpenAI's form; `parameters` is the JSON schema of the arguments. A schema that
            names properties and does not say whether there may be others allows none.
        choice: "auto" (text, calls, or text and calls after it), "required" (calls alone), "none", or the name of the
            one tool that must be called.
        parallel_tool_calls: whether there may be more calls than one, up to 16.

    Returns:
        The grammar; None if the answer is plain text.

    Raises:
        UserError: a definition that is none, or a tool that is not defined.
    """
    schemas = dict(_read_tool(place, tool) for place, tool in enumerate(tools))
    if len(schemas) < len(tools):
        raise UserError("tools holds two definitions of one name; give each tool a name of its own")
    if choice not in ("auto", "required", "none"):
        if choice not in schemas:
            raise UserError(unknown_name_message("tool", choice, list(schemas)))
        schemas, parallel_tool_calls = {choice: schemas[choice]}, False
    elif choice == "required" and not schemas:
        raise UserError("tool_choice='required' needs tools to choose from")
    if choice == "none" or not schemas:
        return None
    more = f" (begin call){{0,{MAX_CALLS - 1}}}" if parallel_tool_calls else ""
    start = f"TEXT | text_begin call{more}" if choice == "auto" else f"begin call{more}"
    rules = [
        "%llguidance {}",
        f"start: {start}",
        f"begin: {json.dumps(BEGIN)}",
        f"text_begin[lazy]: TEXT {json.dumps(BEGIN)}",  # ends at the first of them
        r"TEXT: /(.|\n)*/",
        'call: " " (' + " | ".join(f"call_{number}" for number in range(len(schemas))) + ') "}"',
    ]
    for number, (name, schema) in enumerate(schemas.items()):
        before = json.dumps(f'"{name}", "arguments": ')
        rules.append(f"call_{number}: {before} arguments_{number}")
        rules.append(f"arguments_{number}: %json {json.dumps({**schema, 'x-guidance': WRITTEN})}")
    return "\n".join(rules) + "\n"


def _read_tool(place: int, tool: Any) -> tuple[str, dict[str, Any]]:
    """Return the name of a tool and the schema of its arguments."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UserError(f"tools[{place}] must be the definition of a function with a name, in OpenAI's form")
    name, schema = function["name"], function.get("parameters")
    if not NAME.fullmatch(name):
        raise UserError(f"tools[{place}]: the name {name[:80]!r} must be 1 to 64 letters, digits, '_', '-' or '.'")
    if schema is None:
        schema = {"type": "object", "properties": {}}
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise UserError(f"tools[{place}]: the schema of {name}'s arguments must be of type object")
    schema = {"type": "object", **schema}
    if not schema.keys() & {"allOf", "anyOf", "oneOf", "$ref", "patternProperties"} and "properties" in schema:
        schema.setdefault("additionalProperties", False)
    try:
        check_cost(f"tools[{place}]: the schema of {name}'s arguments", json.dumps(schema, allow_nan=False))
    except (TypeError, RecursionError) as error:
        raise UserError(
            f"tools[{place}]: the schema of {name}'s arguments can't be written as JSON ({error})"
        ) from error
    return name, schema


class ToolCallReader:
    """Tells text from calls of tools while an answer is written."""

    def __init__(self) -> None:
        self.held = ""
        self.in_calls = False

    def push(self, piece: str) -> str:
        """Take in a piece of an answer; return the text that is certainly no part of a call, which may be empty."""
        self.held += piece
        if self.in_calls:
            return ""
        end = self.held.find(BEGIN)
        self.in_calls = end >= 0
        if end < 0:
            size = next((n for n in range(len(BEGIN) - 1, 0, -1) if self.held.endswith(BEGIN[:n])), 0)
            end = len(self.held) - size
        text, self.held = self.held[:end], self.held[end:]
        return text

    def finish(self) -> tuple[str, list[ToolCall]]:
        """Return the rest of the text, and the calls. A call that is cut off, or none, is text."""
        calls, decoder = [], json.JSONDecoder()
        while self.held.startswith(BEGIN):
            try:
                value, end = decoder.raw_decode(self.held)
                call = _read_call(value)
            except (ValueError, RecursionError):
                break
            calls.append(call)
            self.held = self.held[end:].lstrip()
        text, self.held, self.in_calls = self.held, "", False
        return text, calls


def parse_tool_calls(text: str) -> tuple[str, list[ToolCall]]:
    """Return the text of an answer and the calls of tools in it.

    A call that is cut off, or that is not in the form of a call, is text.
    """
    reader = ToolCallReader()
    before = reader.push(text)
    rest, calls = reader.finish()
    return before + rest, calls


def _read_call(value: Any) -> ToolCall:
    """Return the call that a JSON object is.

    Raises:
        ValueError: it is none.
    """
    if value.keys() != {"name", "arguments"} or not isinstance(value["name"], str):
        raise ValueError("no call of a tool")
    if not isinstance(value["arguments"], dict) or not value["name"].isprintable():
        raise ValueError("no call of a tool")
    arguments = json.dumps(value["arguments"], ensure_ascii=False)
    if any("\ud800" <= letter <= "\udfff" for letter in arguments):  # half a character, by its number
        arguments = json.dumps(value["arguments"])
    return ToolCall(value["name"], arguments)
