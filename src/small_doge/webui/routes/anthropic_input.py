"""Conversations and tools of the Anthropic API, as the chat template takes them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ApiError
from .messages import read_content, read_part, read_role


ROLES = ("user", "assistant", "system")
CHOICES = {"auto": "auto", "any": "required", "none": "none"}  # with their names in the OpenAI API


def read_conversation(
    messages: Sequence[Mapping[str, Any]], system: str | Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """Check a conversation, and return its messages in the OpenAI form, which chat templates take.

    Raises:
        ApiError: a message is not right.
    """
    if not messages:
        raise ApiError(400, "messages: at least one message is needed", "messages")
    text = read_content(system, "system")
    result: list[dict[str, Any]] = [{"role": "system", "content": text}] if text else []
    names: dict[str, str] = {}  # of tools, by the ids of their calls
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        role = read_role(message, place, ROLES)
        content = message.get("content")
        if not isinstance(content, str | list):
            raise ApiError(400, f"{place}.content must be a text or a list of blocks", "messages")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if role == "assistant":
            result.append(_read_assistant(blocks, place, names))
        else:
            result += _read_user(blocks, place, role, names)
    return result


def _read_assistant(blocks: Sequence[Any], place: str, names: dict[str, str]) -> dict[str, Any]:
    """Read what the assistant said and the tools it called. Its earlier thoughts are left out, as the API has it."""
    calls, texts = [], []
    for number, block in enumerate(blocks):
        where = f"{place}.content[{number}]"
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "tool_use":
            identifier, name, arguments = (block.get(key) for key in ("id", "name", "input"))
            if not isinstance(identifier, str) or not isinstance(name, str) or not isinstance(arguments, Mapping):
                raise ApiError(
                    400, f"{where} needs an id, a name, and an input with the arguments by name", "messages"
                )
            names[identifier] = name
            function = {"name": name, "arguments": dict(arguments)}
            calls.append({"id": identifier, "type": "function", "function": function})
        elif kind not in ("thinking", "redacted_thinking"):
            texts.append(read_part(block, where))
    return {"role": "assistant", "content": "".join(texts), **({"tool_calls": calls} if calls else {})}


def _read_user(blocks: Sequence[Any], place: str, role: str, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Read what a user said, and the results of tools, which become messages of their own."""
    result: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        where = f"{place}.content[{number}]"
        if isinstance(block, Mapping) and block.get("type") == "tool_result" and role == "user":
            identifier = block.get("tool_use_id")
            if not isinstance(identifier, str) or identifier not in names:
                raise ApiError(400, f"{where}.tool_use_id is that of no tool_use block before it", "messages")
            text = read_content(block.get("content"), f"{where}.content")
            if block.get("is_error"):
                text = f"Error: {text}"
            result.append({"role": "tool", "tool_call_id": identifier, "name": names[identifier], "content": text})
            continue
        text = read_part(block, where)
        if result and result[-1]["role"] == role:
            result[-1]["content"] += text
        else:
            result.append({"role": role, "content": text})
    return result or [{"role": role, "content": ""}]


def read_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return definitions of tools in the OpenAI form.

    Raises:
        ApiError: a definition is not right, or names a tool that a server brings along.
    """
    result = []
    for number, tool in enumerate(tools):
        place = f"tools[{number}]"
        if tool.get("type") not in (None, "custom"):
            raise ApiError(
                400,
                f"{place} has type {tool['type']!r}, which this server does not bring along",
                "tools",
                "unsupported",
            )
        if not isinstance(tool.get("name"), str) or not isinstance(tool.get("input_schema"), Mapping):
            raise ApiError(400, f"{place} needs a name and an input_schema", "tools")
        description = {"description": tool["description"]} if isinstance(tool.get("description"), str) else {}
        function = {"name": tool["name"], **description, "parameters": dict(tool["input_schema"])}
        result.append({"type": "function", "function": function})
    return result


def read_tool_choice(choice: Mapping[str, Any] | None) -> tuple[Any, bool]:
    """Return which tools may or must be called, in the OpenAI form, and whether several may be.

    Raises:
        ApiError: the choice is none of the API's.
    """
    if choice is None:
        return None, True
    kind, name = choice.get("type"), choice.get("name")
    parallel = choice.get("disable_parallel_tool_use") is not True
    if kind == "tool" and isinstance(name, str):
        return {"type": "function", "name": name}, parallel
    if not isinstance(kind, str) or kind not in CHOICES:
        shown = json.dumps(dict(choice))[:80]
        raise ApiError(
            400, f"tool_choice={shown} must have a type of auto, any, none, or tool with a name", "tool_choice"
        )
    return CHOICES[kind], parallel
