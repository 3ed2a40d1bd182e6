"""Messages in the usual spellings, and the values in them, read into one form.

A message is {role, content}, where the content is text; an assistant's may also hold `reasoning_content` (text) and
`tool_calls` (`{"type": "function", "function": {"name": text, "arguments": mapping}}`).
"""

import json
from decimal import Decimal
from typing import Any

import numpy as np


Message = dict[str, Any]

# Names that public data give to the roles of a chat template.
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "ai"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "tool_calls"),
}
ROLE_FIELDS, CONTENT_FIELDS = ("role", "from"), ("content", "value")
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
TEXT_PARTS = ("text", "input_text", "output_text")
# Powers of ten up to which a number is written out in digits.
WRITTEN_OUT = 30


class RowError(ValueError):
    """Why a row can't be read in the form that a stage needs."""


def is_blank(value: Any) -> bool:
    """Tell whether a field holds nothing: null, white space, an empty list or mapping."""
    if value is None or isinstance(value, str):
        return not (value and value.strip())
    return isinstance(value, (list, tuple, dict, np.ndarray)) and len(value) == 0


def find_first(row: dict[str, Any], fields: tuple[str, ...]) -> tuple[str, Any]:
    """Find the name and the value of the first field that holds something; ("", None) if none does."""
    return next(((name, row[name]) for name in fields if not is_blank(row.get(name))), ("", None))


def read_text(value: Any, what: str) -> str:
    """Read a text, the text parts of a content, or a number in its own digits.

    Raises:
        RowError: nothing that is text, with `what` it should be.
    """
    if not isinstance(value, str):
        value = _write_value(value, what)
    if not value.strip():
        raise RowError(f"{what} is empty")
    return check_unicode(value, what)


def check_unicode(text: str, what: str) -> str:
    """Return the text, if it can be written as UTF-8.

    Raises:
        RowError: it holds half a character.
    """
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowError(f"{what} is not valid Unicode") from None
    return text


def _write_value(value: Any, what: str) -> str:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and value:
        return "\n".join(_read_part(part, what) for part in value)
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal, np.number)) and not isinstance(value, np.complexfloating):
        return write_number(value, what)
    raise RowError(f"{what} is {describe_type(value)}, not text")


def _read_part(part: Any, what: str) -> str:
    """Read the text of a part of a content. Parts stand on lines of their own, as vLLM joins them."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise RowError(f"{what} is a list that holds {describe_type(part)}, not parts of text")
    kind, text = part.get("type") or "text", part.get("text")
    if kind not in TEXT_PARTS or not isinstance(text, str):
        raise RowError(f"{what} has a part of type {kind!r}; only parts of text can be learnt")
    return text


def describe_type(value: Any) -> str:
    """Name the type of a value in the words of JSON, where it has one."""
    return "null" if value is None else type(value).__name__


def write_number(value: Any, what: str = "the number") -> str:
    """Write a number in all its digits and no more: 1234567.0 is 1234567, and 1e-7 is 0.0000001.

    Args:
        value: int, float or Decimal, or of NumPy.
        what: it is, for errors.

    Raises:
        RowError: it is not finite, or an integer of thousands of digits.
    """
    try:
        if isinstance(value, Decimal):
            exact = value
        elif isinstance(value, (int, np.integer)):
            return str(int(value))
        else:
            exact = Decimal(str(value))  # the shortest digits that give this very float
    except ValueError:
        raise RowError(f"{what} is a number of too many digits") from None
    if not exact.is_finite():
        raise RowError(f"{what} is {value}, not a finite number")
    if abs(exact.adjusted()) > WRITTEN_OUT:
        return str(exact)
    written = f"{exact:f}"
    return written.rstrip("0").rstrip(".") if "." in written and not isinstance(value, Decimal) else written


def read_messages(value: Any, field: str) -> list[Message]:
    """Read messages from a list of them in the usual spellings, from one of them, or from a JSON text of either.

    Raises:
        RowError: not messages; a role that no template knows; a content that is not text.
    """
    if isinstance(value, str):
        value = read_json(value, f"{field} is text, not messages")
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value:
        raise RowError(f"{field} holds no messages")
    return [_read_message(turn, field) for turn in value]


def _read_message(turn: Any, field: str) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"{field}: a message is {describe_type(turn)}, not a role with its content")
    _, name = find_first(turn, ROLE_FIELDS)
    if name is None:
        raise RowError(f"{field}: a message has no role")
    role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        known = ", ".join(dict.fromkeys(role for role in ROLES.values() if role != "tool_calls"))
        raise RowError(f"{field}: the role {name!r} is not one of {known}")
    _, content = find_first(turn, CONTENT_FIELDS)
    where = f"{field}: the content of a message of the {name}"
    if role == "tool_calls":  # ShareGPT's
        return {"role": "assistant", "content": "", "tool_calls": _read_calls(content, where)}
    message: Message = {"role": role, "content": ""}
    _, calls = find_first(turn, ("tool_calls", "function_call"))
    _, thought = find_first(turn, THOUGHT_FIELDS)
    if content is not None:
        message["content"] = read_text(content, where)
    elif calls is None and thought is None and all(turn.get(name) is None for name in CONTENT_FIELDS):
        raise RowError(f"{where} is null, not text")
    if calls is not None:
        message["tool_calls"] = _read_calls(calls, f"{field}: tool_calls")
    if thought is not None and role == "assistant":
        message["reasoning_content"] = read_text(thought, f"{field}: the thought")
    if isinstance(turn.get("name"), str) and turn["name"]:
        message["name"] = check_unicode(turn["name"], f"{field}: name")
    return message


def _read_calls(value: Any, what: str) -> list[dict[str, Any]]:
    """Read calls of functions in OpenAI's form, whose arguments may be JSON text, or as {name, arguments} alone."""
    if isinstance(value, str):
        value = read_json(value, f"{what} is not a call of a function as JSON")
    calls = []
    for call in [value] if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]:
        function = call.get("function") or call if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowError(f"{what} holds a call without the name of a function")
        arguments = find_first(function, ("arguments", "parameters"))[1]
        if isinstance(arguments, str):
            arguments = read_json(arguments, f"{what}: the arguments of {function['name']} are text, not JSON")
        else:
            arguments = drop_nulls(arguments)
        if arguments is not None and not isinstance(arguments, dict):
            raise RowError(f"{what}: the arguments of {function['name']} are not named")
        checked = {"name": function["name"], "arguments": arguments or {}}
        check_unicode(write_json_text(checked, what), what)
        calls.append({"type": "function", "function": checked})
    return calls


def drop_nulls(value: Any) -> Any:
    """Return a value without the null fields with which parquet and `datasets` fill mappings; a map's pairs as a mapping."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: drop_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list) and value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        return {name: drop_nulls(item) for name, item in value}
    if isinstance(value, (list, tuple)):
        return [drop_nulls(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def read_json(text: str, problem: str) -> Any:
    """Read what a JSON text says.

    Raises:
        RowError: `problem`, if it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowError(problem) from None


def write_json_text(value: Any, what: str) -> str:
    """Write a value as JSON text.

    Raises:
        RowError: it holds what JSON can't say, such as a date.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise RowError(f"{what} holds a value that JSON has no form for") from None


def read_tools(value: Any) -> list | None:
    """Read tool definitions, which a row may hold as a list, as one of them, or as JSON text of either.

    Raises:
        RowError: no definitions.
    """
    if is_blank(value):
        return None
    value = read_json(value, "tools is not valid JSON") if isinstance(value, str) else drop_nulls(value)
    tools = [value] if isinstance(value, dict) else value
    if isinstance(tools, list):  # parquet may hold each as JSON text
        tools = [read_json(tool, "tools is not valid JSON") if isinstance(tool, str) else tool for tool in tools]
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise RowError("tools must be a list of definitions")
    check_unicode(write_json_text(tools, "tools"), "tools")
    return tools or None


def read_history(value: Any) -> list[Message]:
    """Read earlier turns: messages, or pairs of a question and its answer. Pairs that hold nothing are left out.

    Raises:
        RowError: neither, or half a pair.
    """
    if isinstance(value, str) and not is_blank(value):
        value = read_json(value, "history is text, not earlier turns")
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if is_blank(value):
        return []
    if not isinstance(value, (list, tuple)):
        raise RowError(f"history is {describe_type(value)}, not a list of earlier turns")
    if all(isinstance(turn, dict) and find_first(turn, ROLE_FIELDS)[0] for turn in value):
        return read_messages(value, "history")
    messages: list[Message] = []
    for pair in value:
        pair = pair.tolist() if isinstance(pair, np.ndarray) else pair
        if isinstance(pair, dict):
            pair = list(drop_nulls(pair).values())
        if is_blank(pair) or (isinstance(pair, (list, tuple)) and all(map(is_blank, pair))):
            continue
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise RowError("history must hold pairs of a question and its answer, or messages")
        messages.append({"role": "user", "content": read_text(pair[0], "a question in history")})
        messages.append({"role": "assistant", "content": read_text(pair[1], "an answer in history")})
    return messages
