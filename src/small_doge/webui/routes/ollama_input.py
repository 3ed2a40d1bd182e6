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
from .messages import is_begun, read_messages


OPTIONS = {
    "num_predict": "max_new_tokens",
    "repeat_penalty": "repetition_penalty",
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p", "seed", "stop")},
    **{name: name for name in ("presence_penalty", "frequency_penalty")},
}
# Our names of what a client may get wrong, with its own.
NAMES = {
    **{ours: f"options.{name}" for name, ours in OPTIONS.items()},
    "json_schema": "format",
    "grammar": "tools",
    "prompt": "context",  # texts have no wrong tokens
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

    Here it stays until another needs the memory; 0 unloads it, if no other request uses it and none is loaded.
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

    def list_ignored(self) -> list[str]:
        """List the fields that change nothing here and were given, options among them."""
        without_use = self.top_logprobs and not self.logprobs
        return [*super().list_ignored(), *(["top_logprobs"] if without_use else [])]

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
        messages = _read_messages(self.messages or [])
        return GenerationRequest(
            model=self.model,
            messages=messages,
            options=options,
            names=NAMES,
            tools=self.tools or None,
            continue_final_message=is_begun(messages),
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
        asked = GenerationRequest(self.model, options=options, names=NAMES, context=self.context or ())
        if self.raw or not can_chat:
            if self.system:
                raise ApiError(400, f"{self.model} has no chat template, and no place for system", param="system")
            asked.prompts = [self.prompt or ""]
        else:
            system = [{"role": "system", "content": self.system}] if self.system else []
            asked.messages = [*system, {"role": "user", "content": self.prompt or ""}]
            asked.template_variables = self.make_variables()
        return asked


class EmbedBody(KeptBody):
    """A request for embeddings."""

    input: str | list[str]
    truncate: bool | None = None
    dimensions: int | None = None

    def list_ignored(self) -> list[str]:
        """List the fields that change nothing here and were given: texts that are too long are refused, never cut."""
        return [*super().list_ignored(), *(["truncate"] if self.truncate else [])]


class OldEmbedBody(KeptBody):
    """A request for an embedding in the older form."""

    prompt: str


def _read_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Check messages, and return them as the chat template takes them.

    Raises:
        ApiError: one is not right.
    """
    for number, message in enumerate(messages):
        if message.get("images"):
            place = f"messages[{number}].images"
            raise ApiError(400, f"{place}: this model reads text alone", "messages", "unsupported_content")
    return read_messages([{**message, "name": message.get("tool_name")} for message in messages])
