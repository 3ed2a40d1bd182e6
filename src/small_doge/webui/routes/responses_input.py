"""Bodies of `/v1/responses` of the OpenAI API, and their conversations as the chat template takes them."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from ..errors import ApiError
from ..generation import GenerationRequest
from .bodies import MAX_TOP_LOGPROBS, SamplingBody
from .messages import read_content, read_role
from .openai_input import read_tools, shape_answer


ROLES = ("user", "assistant", "system", "developer")
LOGPROBS = "message.output_text.logprobs"
# Further things to include that are empty here, as nothing is encrypted and no tool is run by the server.
EMPTY_PARTS = ("reasoning.encrypted_content",)


class ResponseBody(SamplingBody):
    """A request for a response. Nothing is kept: send the whole conversation with every request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": "Where does Ada live?", "max_output_tokens": 40}]}
    )
    without_effect: ClassVar = (
        *("user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
        *("reasoning", "max_tool_calls"),
    )
    unsupported: ClassVar = {
        "previous_response_id": (),
        "conversation": (),
        "background": (False,),
        "prompt": (),
        "truncation": ("disabled",),
        "context_management": ([],),
    }

    model: str | None = None
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = True
    text: dict[str, Any] | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    store: bool | None = None
    stream: bool | None = False

    @property
    def with_logprobs(self) -> bool:
        """Tell whether probabilities are wanted."""
        return bool(self.top_logprobs) or LOGPROBS in (self.include or ())

    def list_ignored(self) -> list[str]:
        """List the fields that were given and mean nothing here."""
        kinds = [item.get("type") for item in self.input if isinstance(item, Mapping)]
        return [
            *super().list_ignored(),
            *(["store"] if self.store else []),
            *(["input.reasoning"] if "reasoning" in kinds else []),
            *(f"include.{name}" for name in self.include or () if name not in (LOGPROBS, *EMPTY_PARTS)),
        ]

    def to_request(self) -> GenerationRequest:
        """Return the request that all protocols share."""
        options = self.list_options()
        if self.max_output_tokens is not None:
            options["max_new_tokens"] = self.max_output_tokens
        if self.with_logprobs:
            options["logprobs"] = self.top_logprobs or 0
        shape, tools = shape_answer(
            read_tools(self.tools),
            self.tool_choice,
            self.parallel_tool_calls is not False,
            (self.text or {}).get("format"),
            "text.format",
        )
        messages = read_input(self.input)
        if self.instructions:
            messages = _add_instructions(self.instructions, messages)
        names = {
            "prompt": "input",
            "messages": "input",
            "max_new_tokens": "max_tokens" if self.max_output_tokens is None else "max_output_tokens",
            "json_schema": "text.format",
            "grammar": "tools",
        }
        return GenerationRequest(self.model, messages=messages, options={**options, **shape}, names=names, tools=tools)


def read_input(items: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages that input items stand for. Calls of tools belong to the assistant's message before them.

    Raises:
        ApiError: an item is not right, or of a kind that this server does not take.
    """
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    result: list[dict[str, Any]] = []
    for number, item in enumerate(items):
        kind, place = item.get("type", "message"), f"input[{number}]"
        if kind == "message":
            content = read_content(item.get("content"), f"{place}.content")
            result.append({"role": read_role(item, place, ROLES), "content": content})
        elif kind == "function_call":
            _add_call(result, item, place)
        elif kind == "function_call_output":
            result.append(_read_output(item, place))
        elif kind != "reasoning":  # which templates do not write again; named in the header
            raise ApiError(
                400,
                f"{place} has type {kind!r}; this server takes message, function_call and function_call_output",
                "input",
                "unsupported_content",
            )
    if not result:
        raise ApiError(400, "input is empty; send a text or at least one message", "input")
    return result


def _add_call(result: list[dict[str, Any]], item: Mapping[str, Any], place: str) -> None:
    """Add a call of a tool to the assistant's message."""
    identifier, name, arguments = (item.get(key) for key in ("call_id", "name", "arguments"))
    if not (isinstance(identifier, str) and isinstance(name, str) and _is_object(arguments)):
        raise ApiError(
            400, f"{place} needs call_id, name, and arguments, which are the text of a JSON object", "input"
        )
    if not result or result[-1]["role"] != "assistant":
        result.append({"role": "assistant", "content": ""})
    call = {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}
    result[-1].setdefault("tool_calls", []).append(call)


def _is_object(text: Any) -> bool:
    """Tell whether a text is a JSON object."""
    try:
        return isinstance(text, str) and isinstance(json.loads(text or "{}"), dict)
    except (ValueError, RecursionError):
        return False


def _read_output(item: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the message that holds the result of a tool."""
    if not isinstance(item.get("call_id"), str) or item.get("output") is None:
        raise ApiError(400, f"{place} needs call_id and output", "input")
    content = read_content(item["output"], f"{place}.output")
    return {"role": "tool", "tool_call_id": item["call_id"], "content": content}


def _add_instructions(text: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put instructions before a conversation, in one system message with its own."""
    if messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{text}\n\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
