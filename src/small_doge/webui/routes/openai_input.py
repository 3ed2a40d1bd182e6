"""The form of an answer in the OpenAI API: tools, which of them may be called, and JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...inference.tool_calls import build_tool_grammar
from ...utils.errors import UserError
from ..errors import ApiError


WAYS = ("auto", "none", "required")  # of using tools, where none is named


def read_tools(tools: Sequence[Any] | None) -> list[dict[str, Any]]:
    """Return the definitions of functions as chat templates take them, from those of either form of the API.

    Raises:
        ApiError: one is no function, which this server can't offer.
    """
    result = []
    for number, tool in enumerate(tools or []):
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if kind != "function":
            raise ApiError(400, f"tools[{number}] has type {kind!r}; this server offers functions alone", "tools")
        if "function" not in tool:  # the form of /v1/responses
            tool = {"type": "function", "function": {name: tool[name] for name in tool if name != "type"}}
        if not isinstance(tool["function"], Mapping):
            raise ApiError(400, f"tools[{number}].function must be a definition with a name", "tools")
        result.append(dict(tool))
    return result


def shape_answer(
    tools: Sequence[dict[str, Any]], tool_choice: Any, parallel: bool, form: Any, form_name: str = "response_format"
) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    """Return the sampling options that give an answer its form, and the tools that the model is shown.

    Args:
        tools: definitions of functions.
        tool_choice: which of them may or must be called, as either form of the API has it; None for a free choice.
        parallel: whether several calls may be made.
        form: what JSON the answer is, as either form of the API has it.
        form_name: what the field is called.

    Raises:
        ApiError: something is not right, or does not go together.
    """
    choice, names = _read_choice(tool_choice, bool(tools))
    schema = _read_form(form, form_name)
    callable_tools = [tool for tool in tools if names is None or tool["function"].get("name") in names]
    try:
        grammar = build_tool_grammar(callable_tools, choice, parallel)
    except UserError as error:
        is_choice = choice not in WAYS and choice not in [tool["function"].get("name") for tool in tools]
        raise ApiError(400, str(error), "tool_choice" if is_choice else "tools", "invalid_request") from error
    if grammar is None:
        return {} if schema is None else {"json_schema": schema}, None
    if schema is not None and choice == "auto":
        raise ApiError(
            400,
            f"{form_name} asks for JSON, and tools for a free choice between text and calls; let tool_choice require a call "
            "or forbid it, or leave one of them out",
            form_name,
            "unsupported",
        )
    return {"grammar": grammar}, list(tools)  # where a call is required, there is no text that the form is for


def _read_choice(choice: Any, has_tools: bool) -> tuple[str, list[str] | None]:
    """Return what `build_tool_grammar` calls the choice, and the names of the tools that it leaves; None for all."""
    if choice is None:
        return "auto", None
    if choice in ("auto", "none"):
        return choice, None
    if not has_tools:
        raise ApiError(400, "tool_choice needs tools to choose from", "tool_choice")
    if choice == "required":
        return choice, None
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    inner = choice.get(kind, choice) if isinstance(kind, str) else None
    if isinstance(inner, Mapping):
        if kind == "function" and isinstance(inner.get("name"), str):
            return inner["name"], None
        allowed = inner.get("tools")
        if kind == "allowed_tools" and inner.get("mode", "auto") in ("auto", "required") and isinstance(allowed, list):
            named = [tool.get("function", tool) for tool in allowed if isinstance(tool, Mapping)]
            return inner.get("mode", "auto"), [str(tool.get("name")) for tool in named if isinstance(tool, Mapping)]
    raise ApiError(400, "tool_choice must be auto, none, required, or a function by its type and name", "tool_choice")


def _read_form(form: Any, name: str) -> Any:
    """Return the JSON schema of an answer; None if it is free."""
    kind = form.get("type") if isinstance(form, Mapping) else None
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema":
        raise ApiError(400, f"{name}.type must be text, json_object or json_schema", name)
    holder = form.get("json_schema", form)  # in /v1/responses, the schema stands beside the type
    schema = holder.get("schema") if isinstance(holder, Mapping) else None
    if not isinstance(schema, Mapping):
        raise ApiError(400, f"{name} has no schema, which is a JSON object", name)
    return dict(schema)
