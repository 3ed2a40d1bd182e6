"""Bodies of the Ollama API, and what its options mean here."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from ...inference.tool_calls import build_tool_grammar
from ..errors import ApiError
from ..generation import GenerationRequest
from .bodies import MAX_TOP_LOGPROBS, Body


OPTIONS = {
    "num_predict": "max_new_tokens",
    "repeat_penalty": "repetition_penalty",
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p", "seed", "stop")},
    **{name: name for name in ("presence_penalty", "frequency_penalty")},
}
INTEGERS = ("num_predict", "top_k", "seed")
# Other ways of sampling, with the value that asks for nothing.
UNSUPPORTED_OPTIONS = {"mirostat": 0, "tfs_z": 1, "typical_p": 1}
DURATION = re.compile(r"([-+]?)((?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+)|[-+]?\d+(?:\.\d*)?")


class OllamaBody(Body):
    """A request that names a model."""

    model: Annotated[str, Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _read_plainly(cls, data: Any) -> Any:
        """Read a body that was sent as a form, which `curl -d` says of everything, and the older name of `model`."""
        if isinstance(data, bytes):
            try:
                data = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"the request is no JSON: {error}") from error
        if isinstance(data, dict) and "name" in data and "model" not in data:
            data = {**data, "model": data["name"]}
            del data["name"]
        return data


class ModelBody(OllamaBody):
    """A request about a model."""

    without_effect: ClassVar = ("verbose", "insecure")

    stream: bool | None = True


class KeptBody(OllamaBody):
    """A request that says how long the model stays in memory.

    Here it stays until another needs the memory; 0 unloads it, if no other request uses it.
    """

    keep_alive: float | str | None = None
    options: dict[str, Any] | None = None

    def must_unload(self) -> bool:
        """Tell whether the model is unloaded after the request.

        Raises:
            ApiError: `keep_alive` is no duration.
        """
        kept = self.keep_alive
        if isinstance(kept, str):
            if not DURATION.fullmatch(kept):
                raise ApiError(
                    400, f"keep_alive={kept[:80]!r} must be a duration such as 5m, or seconds", param="keep_alive"
                )
            return not re.search("[1-9]", kept)
        return kept == 0

    def list_ignored(self) -> list[str]:
        """List the fields that change nothing here and were given, options among them."""
        unused = [name for name in self.options or {} if name not in OPTIONS and name not in UNSUPPORTED_OPTIONS]
        return [*super().list_ignored(), *(f"options.{name}" for name in unused)]


class AnswerBody(KeptBody):
    """A request for an answer."""

    stream: bool | None = True
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @property
    def with_thinking(self) -> bool:
        """Tell whether thoughts are answered apart."""
        return bool(self.think)

    def list_options(self, most_tokens: int) -> dict[str, Any]:
        """Return the fields of `SamplingOptions` that were given.

        Args:
            most_tokens: what `num_predict` means where it asks for as many tokens as there may be.

        Raises:
            ApiError: an option that can't be honoured, or an unknown format.
        """
        given = {name: value for name, value in (self.options or {}).items() if value is not None}
        for name, harmless in UNSUPPORTED_OPTIONS.items():
            if given.get(name, harmless) != harmless:
                raise ApiError(
                    400, f"options.{name} is not supported by this server; leave it out", name, "unsupported"
                )
        options: dict[str, Any] = {}
        for name, value in given.items():
            if name in INTEGERS and isinstance(value, float) and value.is_integer():
                value = int(value)
            if name in INTEGERS and isinstance(value, int) and value <= 0:
                if name == "seed" and value < 0:  # any
                    continue
                value = most_tokens if name == "num_predict" else 0
            if name in OPTIONS:
                options[OPTIONS[name]] = value
        if self.logprobs:
            options["logprobs"] = self.top_logprobs or 0
        if self.format == "json":
            options["json_schema"] = {"type": "object"}
        elif isinstance(self.format, dict):
            options["json_schema"] = self.format
        elif self.format:
            raise ApiError(400, f"format={self.format[:80]!r} must be json, or a JSON schema", param="format")
        return options

    def make_variables(self) -> dict[str, Any]:
        """Return variables of the chat template."""
        return {} if self.think is None else {"enable_thinking": self.with_thinking}


class ChatBody(AnswerBody):
    """A request for the next message of a conversation."""

    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None

    def to_request(self, most_tokens: int) -> GenerationRequest:
        """Return the request that all protocols share."""
        options = self.list_options(most_tokens)
        grammar = build_tool_grammar(self.tools or [])
        if grammar is not None and "json_schema" not in options:
            options["grammar"] = grammar
        messages = [_read_message(number, message) for number, message in enumerate(self.messages or [])]
        last = messages[-1]
        return GenerationRequest(
            model=self.model,
            messages=messages,
            options=options,
            tools=self.tools or None,
            continue_final_message=last["role"] == "assistant" and "tool_calls" not in last,
            template_variables=self.make_variables(),
        )


class GenerateBody(AnswerBody):
    """A request for the answer to a prompt."""

    unsupported: ClassVar = {"suffix": ("",), "template": ("",), "images": ([],)}

    prompt: str | None = ""
    system: str | None = None
    raw: bool | None = False
    context: list[int] | None = None

    def to_request(self, most_tokens: int, can_chat: bool) -> GenerationRequest:
        """Return the request that all protocols share.

        Args:
            most_tokens: as in `list_options`.
            can_chat: whether the model has a chat template; without one, the prompt is continued as it is.
        """
        options = self.list_options(most_tokens)
        if self.raw and (self.system or self.context):
            raise ApiError(
                400, "raw sends the prompt alone; leave system and context out", param="raw", code="unsupported"
            )
        asked = GenerationRequest(model=self.model, options=options, context=self.context or ())
        if self.raw or not can_chat:
            if self.system:
                raise ApiError(400, f"{self.model} has no chat template, and no place for system", param="system")
            asked.prompt = self.prompt
        else:
            system = [{"role": "system", "content": self.system}] if self.system else []
            asked.messages = [*system, {"role": "user", "content": self.prompt or ""}]
            asked.template_variables = self.make_variables()
        return asked


class EmbedBody(KeptBody):
    """A request for embeddings."""

    unsupported: ClassVar = {"dimensions": ()}

    input: str | list[str]
    truncate: bool | None = True


class OldEmbedBody(KeptBody):
    """A request for an embedding in the older form."""

    prompt: str


def _read_message(number: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """Check a message, and return it as the chat template takes it.

    Raises:
        ApiError: it is not right.
    """
    role, content = message.get("role"), message.get("content")
    place = f"messages[{number}]"
    if not isinstance(role, str) or not role:
        raise ApiError(400, f"{place}.role must be a text, such as user", "messages")
    if content is not None and not isinstance(content, str):
        raise ApiError(400, f"{place}.content must be a text", "messages")
    if message.get("images"):
        raise ApiError(400, f"{place}.images: this model reads text alone", "messages", "unsupported_content")
    calls = message.get("tool_calls")
    if calls and (not isinstance(calls, Sequence) or isinstance(calls, str)):
        raise ApiError(400, f"{place}.tool_calls must be a list", "messages")
    name = message.get("tool_name")
    return {
        "role": role,
        "content": content or "",
        **({"name": name} if isinstance(name, str) else {}),
        **({"tool_calls": calls} if calls else {}),
    }
