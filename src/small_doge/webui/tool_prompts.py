"""Tools for models whose chat template does not know them: what the template leaves out is said in the messages."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..inference import Engine


OFFER = 'You can call these functions, by {"name": ..., "arguments": ...}:'


def fit_template(
    engine: Engine, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None
) -> tuple[list[dict[str, Any]], Sequence[dict[str, Any]] | None]:
    """Return messages and tools such that the model's chat template shows all of them.

    A template that does not name `tools` leaves them out without a word: they stand in the system message then, as the
    project's own template has it. Likewise calls of tools in earlier messages stand in their text.
    """
    template = str(getattr(engine.tokenizer, "chat_template", None) or "")
    result = [dict(message) for message in messages]
    if "tool_calls" not in template:
        result = [_write_calls(message) for message in result]
    if not tools or "tools" in template:
        return result, tools
    offer = "\n".join([OFFER, *(json.dumps(tool, ensure_ascii=False) for tool in tools)])
    if result and result[0].get("role") == "system":
        before = str(result[0].get("content") or "").strip()
        result[0]["content"] = f"{before}\n\n{offer}" if before else offer
    else:
        result.insert(0, {"role": "system", "content": offer})
    return result, None


def _write_calls(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose calls of tools, if there are any, stand in its text."""
    calls = message.get("tool_calls")
    if not isinstance(calls, Sequence) or not calls or not all(isinstance(call, Mapping) for call in calls):
        return message
    texts = [str(message.get("content") or "")]
    for call in calls:
        function = call.get("function", call)
        name, arguments = (
            (function.get(key) for key in ("name", "arguments")) if isinstance(function, Mapping) else ("", "")
        )
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        texts.append(f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {written or "{}"}}}')
    return {**{key: value for key, value in message.items() if key != "tool_calls"}, "content": "".join(texts)}
