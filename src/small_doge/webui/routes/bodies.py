"""What bodies of the OpenAI API have in common."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from ...inference import SamplingOptions
from ..errors import ApiError


HELP = {option.name: option.metadata["help"] for option in fields(SamplingOptions)}
IGNORED_HEADER = "X-Small-Doge-Ignored"
MAX_TOP_LOGPROBS = 20


def list_names(names: Iterable[str]) -> str:
    """Write names for a header; what a header can't hold is left out."""
    kept = (re.sub(r"[^A-Za-z0-9._\-\[\]]", "", name)[:64] for name in names)
    return ", ".join(list(filter(None, kept))[:32])


class Body(BaseModel):
    """A request's body: types are exact, and unknown fields are kept apart, to be told."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, protected_namespaces=())

    # Known fields that change nothing here: who asked, where it is kept, what it costs.
    without_effect: ClassVar[tuple[str, ...]] = ()
    # Known fields that can't be honoured, with the values that ask for nothing.
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    def check_fields(self) -> dict[str, str]:
        """Refuse known fields that can't be honoured.

        Returns:
            The header that names the fields that were ignored, if there are any.

        Raises:
            ApiError: the field's name.
        """
        extra = self.model_extra or {}
        for name, harmless in self.unsupported.items():
            if name in extra and extra[name] is not None and extra[name] not in harmless:
                raise ApiError(400, f"{name} is not supported by this server; leave it out", name, "unsupported")
        ignored = self.list_ignored()
        return {IGNORED_HEADER: list_names(ignored)} if ignored else {}

    def list_ignored(self) -> list[str]:
        """List the fields that were given and mean nothing here, those of an object as `OBJECT.NAME`."""
        extra = self.model_extra or {}
        inner = [(name, value) for name in type(self).model_fields if isinstance(value := getattr(self, name), Body)]
        return [
            *(name for name in extra if name not in self.without_effect and name not in self.unsupported),
            *(f"{name}.{part}" for name, value in inner for part in value.list_ignored()),
        ]


def _explain(name: str) -> Any:
    """Describe a field as the sampling option that it is."""
    return Field(description=HELP[name])


class SamplingBody(Body):
    """Sampling options by the names of the OpenAI API, and those that other servers have besides."""

    temperature: Annotated[float | None, _explain("temperature")] = None
    top_p: Annotated[float | None, _explain("top_p")] = None
    top_k: Annotated[int | None, _explain("top_k")] = None
    min_p: Annotated[float | None, _explain("min_p")] = None
    repetition_penalty: Annotated[float | None, _explain("repetition_penalty")] = None
    presence_penalty: Annotated[float | None, _explain("presence_penalty")] = None
    frequency_penalty: Annotated[float | None, _explain("frequency_penalty")] = None
    seed: Annotated[int | None, _explain("seed")] = None
    stop: Annotated[str | list[str] | None, _explain("stop")] = None
    stop_token_ids: Annotated[list[int] | None, _explain("stop_token_ids")] = None
    ignore_eos: Annotated[bool | None, _explain("ignore_eos")] = None
    logit_bias: Annotated[dict[str, float] | None, _explain("logit_bias")] = None
    max_tokens: Annotated[int | None, _explain("max_new_tokens")] = None
    return_token_ids: Annotated[bool | None, Field(description="Whether choices have the ids of their tokens.")] = (
        False
    )

    def list_options(self) -> dict[str, Any]:
        """Return the fields of `SamplingOptions` that were given."""
        names = (
            "temperature top_p top_k min_p repetition_penalty presence_penalty frequency_penalty stop stop_token_ids "
            "ignore_eos logit_bias"
        )
        options = {name: getattr(self, name) for name in names.split() if getattr(self, name) is not None}
        if self.seed is not None:
            options["seed"] = self.seed % 2**63
        if self.top_k is not None and self.top_k < 0:  # how others write "all"
            options["top_k"] = 0
        if self.max_tokens is not None:
            options["max_new_tokens"] = self.max_tokens
        return options


class StreamOptions(Body):
    """Options of a stream."""

    without_effect: ClassVar = ("include_obfuscation",)

    include_usage: bool = False


Choices = Annotated[int, Field(ge=1, le=128)]
