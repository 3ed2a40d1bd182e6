"""Choosing the next token: penalties, temperature, top-k, top-p, min-p, bias, grammars, log-probabilities."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..utils.errors import UserError
from .options import SamplingOptions


@dataclass
class Token:
    """A token of an answer.

    Attributes:
        id: its number.
        logprob: natural logarithm of the probability that the model gave it, or None if not asked for.
        top_logprobs: the likeliest tokens and their log-probabilities.
        text: what the answer's text grew by, where text was asked for.
        finish_reason: of the answer, if this is its last token.
    """

    id: int
    logprob: float | None = None
    top_logprobs: dict[int, float] = field(default_factory=dict)
    text: str = ""
    finish_reason: str | None = None


class Sampler:
    """Draws the tokens of one answer.

    Args:
        options: how to draw.
        prompt: tokens of the prompt, for the repetition penalty.
        vocab_size: V.
        matcher: an `llguidance.LLMatcher` that the answer must satisfy, or None.
    """

    def __init__(self, options: SamplingOptions, prompt: Sequence[int], vocab_size: int, matcher: Any = None) -> None:
        options.check_tokens_of(vocab_size)
        self.options = options
        self.matcher = matcher
        self.random = np.random.default_rng(options.seed)
        self.counts: Counter[int] = Counter()
        self.seen = np.zeros(vocab_size, dtype=bool) if options.repetition_penalty != 1 else None
        if self.seen is not None:
            self.seen[list(prompt)] = True

    def draw(self, logits: np.ndarray) -> Token:
        """The next token for logits [V] float32, which are left as they are.

        Raises:
            UserError: logits that are not finite, or no token that may follow.
        """
        options = self.options
        if not np.isfinite(logits.sum()):
            raise UserError("the model computed logits that are not finite: its weights are damaged, or overflow")
        token = self._pick(self._adjust(logits))
        result = Token(token)
        if options.logprobs is not None:
            logprobs = logits - _log_sum_exp(logits)
            count = min(options.logprobs, len(logits))
            best = np.argsort(-logprobs)[:count]
            result = Token(token, float(logprobs[token]), {int(i): float(logprobs[i]) for i in best})
        self.accept(token)
        return result

    def accept(self, token: int) -> None:
        """Take note of a token of the answer."""
        self.counts[token] += 1
        if self.seen is not None:
            self.seen[token] = True
        if self.matcher is not None and not self.matcher.consume_token(token):
            raise UserError(f"json_schema: the grammar does not take token {token} ({self.matcher.get_error()})")

    def replay(self, tokens: Sequence[int]) -> None:
        """Be as after drawing these tokens, from the state of the beginning."""
        for token in tokens:
            self.accept(token)
        if self.options.temperature != 0:
            self.random.random(len(tokens))

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
        if not logits.max() > -np.inf:
            raise UserError("no token may follow: the options and the grammar leave none")
        if options.temperature == 0:
            return int(logits.argmax())
        if 0 < options.top_k < len(logits):
            tokens = np.argpartition(-logits, options.top_k - 1)[: options.top_k]
        else:
            tokens = np.arange(len(logits))
        chosen = logits[tokens].astype(np.float64)
        with np.errstate(over="ignore"):  # a tiny temperature leaves the likeliest alone
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
        text = "{}" if text.strip() == "true" else text  # both mean any JSON; options need an object
        try:
            # Free white space lets a small model write it for ever.
            grammar = self.make.grammar_from_json_schema(text, {"whitespace_flexible": False})
        except ValueError as error:
            raise UserError(f"json_schema is not a usable JSON schema: {error}") from error
        matcher = self.make(self.tokenizer, grammar)
        if matcher.is_error():
            raise UserError(f"json_schema is not a usable JSON schema: {matcher.get_error()}")
        return matcher
