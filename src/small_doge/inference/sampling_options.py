"""Sampling options, checked when a request is made: one that passes can't harm another request.

The help of each field is also the command line's.
"""

import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message


# Penalties and biases lie within this bound, so that arithmetic with logits stays finite.
LARGEST = 1e6


def _option(
    help: str, default: Any, minimum: float | None = None, maximum: float | None = None, note: str = ""
) -> Any:
    """Declare an option.

    Args:
        help: what it does, for documents and the command line.
        default: its value if not given.
        minimum: smallest number that is accepted.
        maximum: largest number that is accepted.
        note: what a command line says besides where it has no default.
    """
    return field(default=default, metadata={"help": help, "min": minimum, "max": maximum, "note": note})


@dataclass
class SamplingOptions:
    """How tokens are sampled. Names and meanings are those of `transformers` and the OpenAI API.

    Numbers may be those of Python, numpy or torch.

    Raises:
        UserError: a value of the wrong type or out of range, with the option's name and what it must be.
    """

    max_new_tokens: int = _option("Maximum number of tokens to generate; 0 only processes the prompt.", 256, 0)
    temperature: float = _option(
        "Sampling temperature: higher values give more varied text, 0 always takes the most likely token.", 0.0, 0
    )
    top_k: int = _option("Sample from the k most likely tokens only; 0 considers all.", 0, 0)
    top_p: float = _option(
        "Sample from the most likely tokens whose probabilities add up to this value; 1 considers all.", 1.0, 0, 1
    )
    min_p: float = _option(
        "Exclude tokens less likely than this fraction of the most likely token's probability.", 0.0, 0, 1
    )
    repetition_penalty: float = _option(
        "Values above 1 make tokens that already appear in the prompt or the output less likely.", 1.0, 1e-6, LARGEST
    )
    presence_penalty: float = _option(
        "Subtract this value from the logit of every token that appears in the output.", 0.0, -LARGEST, LARGEST
    )
    frequency_penalty: float = _option(
        "Subtract this value from a token's logit for each time it appears in the output.", 0.0, -LARGEST, LARGEST
    )
    seed: int | None = _option(
        "Seed for sampling; the same seed gives the same text.",
        None,
        0,
        note="A new one is drawn for every answer if not set.",
    )
    stop: str | Sequence[str] = _option(
        "Text that ends the output and is not part of it; it may name special tokens. Can be given several times.", ()
    )
    stop_token_ids: Sequence[int] = _option("Token ids that end the output, besides the model's own end tokens.", ())
    ignore_eos: bool = _option("Continue after an end token.", False)
    logit_bias: dict[int, float] = field(
        default_factory=dict, metadata={"help": "Values to add to the logits of tokens, by token id."}
    )
    logprobs: int | None = _option(
        "Number of most likely tokens to report log-probabilities for, at every token.",
        None,
        0,
        1000,
    )
    prompt_logprobs: int | None = _option(
        "Number of most likely tokens to report log-probabilities for, at every token of the prompt.",
        None,
        0,
        1000,
    )
    json_schema: dict | str | None = field(
        default=None,
        metadata={
            "help": "JSON schema that the output must follow; {} allows any JSON.",
            "note": "Give a file, or the schema itself.",
        },
    )
    grammar: str | None = field(
        default=None,
        metadata={
            "help": "Grammar that the output must follow, in llguidance's form of Lark; not with a JSON schema."
        },
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if option.type in (int, float) or (option.type == int | None and value is not None):
                check: Any = check_number if option.type is float else check_integer
                low, high = option.metadata["min"], option.metadata["max"]
                setattr(self, option.name, check(option.name, value, low, high))
        self.stop = _check_stop(self.stop)
        self.stop_token_ids = check_tokens(
            "stop_token_ids", () if self.stop_token_ids is None else self.stop_token_ids
        )
        self.ignore_eos = _check_switch("ignore_eos", self.ignore_eos)
        self.logit_bias = _check_bias(self.logit_bias)
        self.json_schema = _check_schema(self.json_schema)
        if self.grammar is not None and (not isinstance(self.grammar, str) or not self.grammar.strip()):
            raise UserError(f"grammar={_show(self.grammar)} must be the text of a grammar")
        if self.grammar is not None and self.json_schema is not None:
            raise UserError("grammar and json_schema can't both shape an output; leave one of them out")
        if self.top_p == 0:
            raise UserError("top_p=0 leaves no token; for the most likely token set temperature=0")

    @classmethod
    def from_names(cls, options: dict[str, Any], base: "SamplingOptions | None" = None) -> "SamplingOptions":
        """Build options from keyword arguments; those not given are `base`'s, or the defaults.

        Raises:
            UserError: an unknown name, with the nearest known one, or a value that is not right.
        """
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise UserError(unknown_name_message("option", name, known, limit=len(known)))
        return cls(**options) if base is None else replace(base, **options)

    def check_tokens_of(self, vocab_size: int) -> None:
        """Raise a `UserError` for token ids that the model does not have."""
        for name, tokens in (("logit_bias", self.logit_bias), ("stop_token_ids", self.stop_token_ids)):
            outside = next((token for token in tokens if token >= vocab_size), None)
            if outside is not None:
                raise UserError(f"{name} names token {outside}; the model has 0 to {vocab_size - 1}")


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return an integer of any library as an `int`, if it lies in a range.

    Raises:
        UserError: it does not, or is no integer.
    """
    try:
        number = operator.index(_unwrap(value))
    except TypeError:
        number = None
    if number is None or isinstance(_unwrap(value), bool) or number < low or (high is not None and number > high):
        raise UserError(f"{name}={_show(value)} must be a whole number {_describe_range(low, high)}")
    return number


def check_number(name: str, value: Any, low: float, high: float | None = None) -> float:
    """Return a number of any library as a `float`, if it is finite and lies in a range.

    Raises:
        UserError: it does not, or is no number.
    """
    plain = _unwrap(value)
    try:
        number = float(plain) if isinstance(plain, int | float) and not isinstance(plain, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < low or (high is not None and number > high):
        raise UserError(f"{name}={_show(value)} must be a number {_describe_range(low, high)}")
    return number


def check_tokens(name: str, value: Any) -> list[int]:
    """Return token ids, given as a flat list, array or tensor of integers, as a list.

    Raises:
        UserError: they are something else.
    """
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise UserError(f"{name}={_show(value)} must be a list of token ids")
    plain = value.tolist() if hasattr(value, "tolist") else list(value)
    if not isinstance(plain, list):
        raise UserError(f"{name}={_show(value)} must be a list of token ids")
    if all(type(token) is int and token >= 0 for token in plain):  # quick, for long prompts
        return plain
    return [check_integer(f"{name}[{place}]", token, 0) for place, token in enumerate(plain)]


def _unwrap(value: Any) -> Any:
    """Take the number out of an array or tensor without dimensions."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _show(value: Any) -> str:
    """Show a value in an error message, cut to 80 characters."""
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _describe_range(low: float, high: float | None) -> str:
    """Say which numbers are accepted."""
    return f"of at least {low:g}" if high is None else f"from {low:g} to {high:g}"


def _check_switch(name: str, value: Any) -> bool:
    """Return a truth value of any library as a `bool`."""
    plain = _unwrap(value)
    if not isinstance(plain, bool):
        raise UserError(f"{name}={_show(value)} must be True or False")
    return plain


def _check_stop(value: Any) -> tuple[str, ...]:
    """Return one stop text, or several, as a tuple."""
    if value is None:
        return ()
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"stop={_show(value)} must be a text or a list of texts")
    if not all(texts):
        raise UserError("stop holds an empty text, which would end every answer at once; leave it out")
    return tuple(texts)


def _check_bias(value: Any) -> dict[int, float]:
    """Check a map from token ids, which may be strings as in JSON, to numbers."""
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"logit_bias={_show(value)} must map token ids to what is added to their logits")
    checked = {}
    for token, bias in (value or {}).items():
        number = int(token) if isinstance(token, str) and token.isascii() and token.isdigit() else token
        checked[check_integer("logit_bias: token", number, 0)] = check_number(
            f"logit_bias[{token!r}]", bias, -LARGEST, LARGEST
        )
    return checked


def _check_schema(value: Any) -> dict | str | None:
    """Check that a JSON schema is text, or can be written as JSON."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise UserError(f"json_schema={_show(value)} must be a JSON schema: a dict, or its text")
    try:
        json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"json_schema can't be written as JSON ({error})") from error
    return dict(value)
