"""How an answer is drawn, checked when it is given: a request that gets past here can do no harm."""

import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message


@dataclass
class SamplingOptions:
    """How an answer is drawn. Names and meanings are those of `transformers` and the OpenAI API.

    Numbers may be those of Python, numpy or torch.

    Attributes:
        max_new_tokens: tokens to write at most.
        temperature: 0 takes the likeliest token.
        top_k: draw from the k likeliest; 0 for all.
        top_p: draw from the likeliest that together have this probability.
        min_p: drop tokens less likely than this share of the likeliest.
        repetition_penalty: divides the positive logits of tokens seen, in prompt and answer, and multiplies the others.
        presence_penalty: taken from the logit of every token in the answer.
        frequency_penalty: the same, for each time it is there.
        seed: of the draws; None for another every time.
        stop: texts that end the answer and are not part of it; they may name special tokens.
        stop_token_ids: tokens that end the answer, besides the model's own.
        ignore_eos: go on after an end token.
        logit_bias: added to the logits of tokens, by their number.
        logprobs: log-probabilities of so many likeliest tokens with every token; None for none.
        json_schema: a JSON schema (dict or text) that the answer must follow; {} for any JSON.

    Raises:
        UserError: a value of the wrong type or out of range, with the option's name and what it must be.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    logit_bias: dict[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    json_schema: dict | str | None = None

    def __post_init__(self) -> None:
        self.max_new_tokens = check_integer("max_new_tokens", self.max_new_tokens, 1)
        self.temperature = check_number("temperature", self.temperature, 0)
        self.top_k = check_integer("top_k", self.top_k, 0)
        self.top_p = check_number("top_p", self.top_p, 0, 1)
        self.min_p = check_number("min_p", self.min_p, 0, 1)
        self.repetition_penalty = check_number("repetition_penalty", self.repetition_penalty, 1e-6, 1e6)
        self.presence_penalty = check_number("presence_penalty", self.presence_penalty, -1e6, 1e6)
        self.frequency_penalty = check_number("frequency_penalty", self.frequency_penalty, -1e6, 1e6)
        self.seed = None if self.seed is None else check_integer("seed", self.seed, 0)
        self.stop = _check_stop(self.stop)
        self.stop_token_ids = check_tokens(
            "stop_token_ids", () if self.stop_token_ids is None else self.stop_token_ids
        )
        self.ignore_eos = _check_switch("ignore_eos", self.ignore_eos)
        self.logit_bias = _check_bias(self.logit_bias)
        self.logprobs = None if self.logprobs is None else check_integer("logprobs", self.logprobs, 0, 1000)
        self.json_schema = _check_schema(self.json_schema)
        if self.top_p == 0:
            raise UserError("top_p=0 leaves no token; for the likeliest token set temperature=0")

    @classmethod
    def from_names(cls, options: dict[str, Any]) -> "SamplingOptions":
        """From keyword arguments.

        Raises:
            UserError: an unknown name, with the nearest known one, or a value that is not right.
        """
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise UserError(unknown_name_message("option", name, known, limit=len(known)))
        return cls(**options)

    def check_tokens_of(self, vocab_size: int) -> None:
        """Raise a `UserError` for tokens that the model does not have."""
        for name, tokens in (("logit_bias", self.logit_bias), ("stop_token_ids", self.stop_token_ids)):
            outside = next((token for token in tokens if token >= vocab_size), None)
            if outside is not None:
                raise UserError(f"{name} names token {outside}; the model has 0 to {vocab_size - 1}")


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """A whole number of any library in a range."""
    try:
        number = operator.index(_unwrap(value))
    except TypeError:
        number = None
    if number is None or isinstance(_unwrap(value), bool) or number < low or (high is not None and number > high):
        raise UserError(f"{name}={_show(value)} must be a whole number {_describe_range(low, high)}")
    return number


def check_number(name: str, value: Any, low: float, high: float | None = None) -> float:
    """A finite number of any library in a range."""
    plain = _unwrap(value)
    try:
        number = float(plain) if isinstance(plain, int | float) and not isinstance(plain, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < low or (high is not None and number > high):
        raise UserError(f"{name}={_show(value)} must be a number {_describe_range(low, high)}")
    return number


def check_tokens(name: str, value: Any) -> list[int]:
    """Numbers of tokens: a flat list, array or tensor of whole numbers."""
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise UserError(f"{name}={_show(value)} must be a list of numbers of tokens")
    plain = value.tolist() if hasattr(value, "tolist") else list(value)
    if not isinstance(plain, list):
        raise UserError(f"{name}={_show(value)} must be a list of numbers of tokens")
    return [check_integer(f"{name}[{place}]", token, 0) for place, token in enumerate(plain)]


def _unwrap(value: Any) -> Any:
    """The number in an array or tensor without dimensions."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _describe_range(low: float, high: float | None) -> str:
    return f"of at least {low:g}" if high is None else f"from {low:g} to {high:g}"


def _check_switch(name: str, value: Any) -> bool:
    plain = _unwrap(value)
    if not isinstance(plain, bool):
        raise UserError(f"{name}={_show(value)} must be True or False")
    return plain


def _check_stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"stop={_show(value)} must be a text or a list of texts")
    if not all(texts):
        raise UserError("stop holds an empty text, which would end every answer at once; leave it out")
    return tuple(texts)


def _check_bias(value: Any) -> dict[int, float]:
    """Numbers of tokens may be texts, as in JSON."""
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"logit_bias={_show(value)} must map numbers of tokens to what is added to their logits")
    checked = {}
    for token, bias in (value or {}).items():
        number = int(token) if isinstance(token, str) and token.isascii() and token.isdigit() else token
        checked[check_integer("a token of logit_bias", number, 0)] = check_number(
            f"logit_bias[{token!r}]", bias, -1e6, 1e6
        )
    return checked


def _check_schema(value: Any) -> dict | str | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise UserError(f"json_schema={_show(value)} must be a JSON schema: a dict, or its text")
    try:
        json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"json_schema can't be written as JSON ({error})") from error
    return dict(value)
