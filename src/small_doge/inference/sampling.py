"""Choosing the next token: penalties, temperature, top-k, top-p, min-p, bias, grammars, log-probabilities."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message


@dataclass
class SamplingOptions:
    """How an answer is drawn. Names and meanings are those of `transformers` and the OpenAI API.

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
        stop: texts that end the answer and are not part of it.
        stop_token_ids: tokens that end the answer, besides the model's own.
        ignore_eos: go on after an end token.
        logit_bias: added to the logits of tokens, by their number.
        logprobs: log-probabilities of so many likeliest tokens with every token; None for none.
        json_schema: a JSON schema (dict or text) that the answer must follow; {} for any JSON.
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
        self.stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        self.logit_bias = {int(token): float(bias) for token, bias in (self.logit_bias or {}).items()}
        limits = {
            "max_new_tokens": (1, None),
            "temperature": (0, None),
            "top_k": (0, None),
            "top_p": (0, 1),
            "min_p": (0, 1),
            "repetition_penalty": (1e-6, None),
            "logprobs": (0, 1000),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is None and name == "logprobs":
                continue
            if not isinstance(value, int | float) or not value >= low or (high is not None and value > high):
                wanted = f"at least {low}" if high is None else f"between {low} and {high}"
                raise UserError(f"{name}={value!r} must be {wanted}")
        if self.top_p == 0:
            raise UserError("top_p=0 leaves no token; for the likeliest token set temperature=0")
        if any(not text for text in self.stop):
            raise UserError("stop holds an empty text, which would end every answer at once; leave it out")

    @classmethod
    def from_names(cls, options: dict[str, Any]) -> "SamplingOptions":
        """From keyword arguments.

        Raises:
            UserError: an unknown name, with the nearest known one, or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise UserError(unknown_name_message("option", name, known, limit=len(known)))
        return cls(**options)


@dataclass
class Token:
    """A token of an answer.

    Attributes:
        id: its number.
        logprob: natural logarithm of the probability that the model gave it, or None if not asked for.
        top_logprobs: the likeliest tokens and their log-probabilities.
        text: what the answer's text grew by, where text was asked for.
    """

    id: int
    logprob: float | None = None
    top_logprobs: dict[int, float] = field(default_factory=dict)
    text: str = ""


class Sampler:
    """Draws the tokens of one answer.

    Args:
        options: how to draw.
        prompt: tokens of the prompt, for the repetition penalty.
        vocab_size: V.
        matcher: an `llguidance.LLMatcher` that the answer must satisfy, or None.
    """

    def __init__(self, options: SamplingOptions, prompt: Sequence[int], vocab_size: int, matcher: Any = None) -> None:
        self.options = options
        self.matcher = matcher
        self.random = np.random.default_rng(options.seed)
        self.counts: Counter[int] = Counter()
        self.seen = np.zeros(vocab_size, dtype=bool) if options.repetition_penalty != 1 else None
        if self.seen is not None:
            self.seen[list(prompt)] = True
        for token in options.logit_bias:
            if not 0 <= token < vocab_size:
                raise UserError(f"logit_bias names token {token}; the model has 0 to {vocab_size - 1}")

    def draw(self, logits: np.ndarray) -> Token:
        """The next token for logits [V] float32, which are left as they are."""
        options = self.options
        token = self._pick(self._adjust(logits))
        result = Token(token)
        if options.logprobs is not None:
            logprobs = logits - _log_sum_exp(logits)
            count = min(options.logprobs, len(logits))
            best = np.argsort(-logprobs)[:count]
            result = Token(token, float(logprobs[token]), {int(i): float(logprobs[i]) for i in best})
        self.counts[token] += 1
        if self.seen is not None:
            self.seen[token] = True
        if self.matcher is not None:
            self.matcher.consume_token(token)
        return result

    def _adjust(self, logits: np.ndarray) -> np.ndarray:
        options = self.options
        if self.seen is not None:
            scaled = np.where(logits > 0, logits / options.repetition_penalty, logits * options.repetition_penalty)
            logits = np.where(self.seen, scaled, logits)
        if options.logit_bias or ((options.presence_penalty or options.frequency_penalty) and self.counts):
            logits = logits.copy()
            for token, count in self.counts.items():
                logits[token] -= options.presence_penalty + options.frequency_penalty * count
            for token, bias in options.logit_bias.items():
                logits[token] += bias
        if self.matcher is not None:
            mask = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
            allowed = np.unpackbits(mask, bitorder="little")[: len(logits)].astype(bool)
            logits = np.where(allowed, logits, -np.inf)
        return logits

    def _pick(self, logits: np.ndarray) -> int:
        options = self.options
        if options.temperature == 0:
            return int(logits.argmax())
        if 0 < options.top_k < len(logits):
            tokens = np.argpartition(-logits, options.top_k - 1)[: options.top_k]
        else:
            tokens = np.arange(len(logits))
        chosen = logits[tokens].astype(np.float64)
        probabilities = np.exp((chosen - chosen.max()) / options.temperature)
        probabilities /= probabilities.sum()
        if options.top_p < 1:
            order = np.argsort(-probabilities, kind="stable")
            before = np.cumsum(probabilities[order]) - probabilities[order]
            probabilities[order[before >= options.top_p]] = 0
        if options.min_p > 0:
            probabilities[probabilities < options.min_p * probabilities.max()] = 0
        cumulative = np.cumsum(probabilities)
        drawn = np.searchsorted(cumulative, self.random.random() * cumulative[-1], side="right")
        return int(tokens[min(drawn, len(tokens) - 1)])


def _log_sum_exp(logits: np.ndarray) -> float:
    top = logits.max()
    return float(top + np.log(np.exp((logits - top).astype(np.float64)).sum()))


class Grammars:
    """Makes matchers of JSON schemas for one tokenizer.

    Args:
        tokenizer: of `transformers`.
        vocab_size: V.
        end_ids: tokens that end an answer.

    Raises:
        UserError: llguidance is not there.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, end_ids: Sequence[int]) -> None:
        try:
            import llguidance.hf
        except ImportError as error:
            raise UserError("json_schema needs llguidance: pip install 'small-doge[export]'") from error
        self.make = llguidance.LLMatcher
        self.tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=list(end_ids) or None)

    def match(self, schema: dict | str) -> Any:
        """An `LLMatcher` of a JSON schema.

        Raises:
            UserError: it is not one.
        """
        text = schema if isinstance(schema, str) else json.dumps(schema)
        try:
            # Free white space lets a small model write it for ever.
            grammar = self.make.grammar_from_json_schema(text, {"whitespace_flexible": False})
        except ValueError as error:
            raise UserError(f"json_schema is not a usable JSON schema: {error}") from error
        matcher = self.make(self.tokenizer, grammar)
        if matcher.is_error():
            raise UserError(f"json_schema is not a usable JSON schema: {matcher.get_error()}")
        return matcher
