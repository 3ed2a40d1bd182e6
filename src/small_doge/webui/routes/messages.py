"""What the messages of all protocols have in common: roles, and contents that are text."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ApiError


TEXT_PARTS = ("text", "input_text", "output_text")


def read_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Check the messages of a conversation in the OpenAI form, and return them as the chat template takes them.

    Raises:
        ApiError: a message is not right.
    """
    if not messages:
        raise ApiError(400, "messages is empty; send at least one message", "messages")
    result = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        old = next((name for name in ("function_call", "audio") if message.get(name) is not None), None)
        if old is not None:
            raise ApiError(400, f"{place}.{old} is not supported by this server", "messages", "unsupported")
        kept = {
            name: message[name] for name in ("name", "tool_calls", "tool_call_id") if message.get(name) is not None
        }
        content = read_content(message.get("content"), f"{place}.content")
        result.append({"role": read_role(message, place), "content": content, **kept})
    return result


def read_role(message: Mapping[str, Any], place: str, roles: Sequence[str] = ()) -> str:
    """Return the role of a message; a developer's is the system's.

    Args:
        message: what the client sent.
        place: where, for errors.
        roles: those that the protocol has; any if empty.

    Raises:
        ApiError: there is none, or the protocol does not have it.
    """
    role = message.get("role")
    if not isinstance(role, str) or not role or (roles and role not in roles):
        wanted = f"one of {', '.join(roles)}" if roles else "a text, such as user"
        raise ApiError(400, f"{place}.role must be {wanted}", place.partition("[")[0])
    return "system" if role == "developer" else role


def read_content(content: Any, place: str) -> str:
    """Return a message's content, which is a text or a list of parts, as one text.

    Raises:
        ApiError: a part is no text, or the content is something else.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise ApiError(400, f"{place} must be a text or a list of parts", place)
    return "".join(read_part(part, f"{place}[{number}]") for number, part in enumerate(content))


def read_part(part: Any, place: str) -> str:
    """Return the text of a part of a message.

    Raises:
        ApiError: it is no text.
    """
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = part.get("text") if kind in TEXT_PARTS else None
    if not isinstance(text, str):
        raise ApiError(400, f"{place} has type {kind!r}; this model reads text alone", place, "unsupported_content")
    return text


def is_begun(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a conversation ends with a message of the assistant that can be continued."""
    return messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls")
