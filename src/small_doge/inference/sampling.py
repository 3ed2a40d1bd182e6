"""Sampling the next token: penalties, temperature, top-k, top-p, min-p, bias, grammars, log-probabilities."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..utils.errors import UserError
from .grammars import show_error
from .sampling_options import SamplingOptions


FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass
class Token:
    """A token of an output.

    Attributes:
        id: its token id.
        logprob: natural logarithm of the probability that the model gave it; None if not requested.
        top_logprobs: log-probabilities of the most likely tokens, by token id.
        text: the text that it completed, if text was requested.
        finish_reason: the finish reason of the request if this is its last token, else None.
    """

    id: int
    logprob: float | None = None
    top_logprobs: dict[int, float] = field(default_factory=dict)
    text: str = ""
    finish_reason: FinishReason | None = None


class Sampler:
    """Samples the tokens of one request.

    Args:
        options: how to sample.
        prompt_ids: token ids of the prompt, for the repetition penalty.
        vocab_size: V, the number of token ids.
        matcher: an `llguidance.LLMatcher` that the output must satisfy, or None.
    """

    def __init__(
        self, options: SamplingOptions, prompt_ids: Sequence[int], vocab_size: int, matcher: Any = None
    ) -> None:
        options.check_tokens_of(vocab_size)
        self.options = options
        self.matcher = matcher
        self.random = np.random.default_rng(options.seed)
        self.counts: Counter[int] = Counter()
        self.seen = np.zeros(vocab_size, dtype=bool) if options.repetition_penalty != 1 else None
        if self.seen is not None:
            self.seen[list(prompt_ids)] = True

    def sample(self, logits: np.ndarray) -> Token:
        """Sample the next token from logits [V] float32, which are not changed.

        Raises:
            UserError: the logits are not finite, or the options and the grammar exclude every token.
        """
        options = self.options
        check_logits(logits)
        token_id = self._pick(self._adjust(logits))
        token = Token(token_id)
        if options.logprobs is not None:
            token = describe_token(token_id, logits, options.logprobs)
        self.accept(token_id)
        return token

    def accept(self, token_id: int) -> None:
        """Record a token of the output for the penalties and the grammar."""
        self.counts[token_id] += 1
        if self.seen is not None:
            self.seen[token_id] = True
        if self.matcher is not None and not self.matcher.consume_token(token_id):
            raise UserError(f"the grammar does not accept token {token_id} ({show_error(self.matcher.get_error())})")

    def replay(self, output_ids: Sequence[int]) -> None:
        """Advance a new sampler to its state after sampling these tokens."""
        for token_id in output_ids:
            self.accept(token_id)
        if self.options.temperature != 0:  # each of them took one random number
            self.random.random(len(output_ids))

    def _adjust(self, logits: np.ndarray) -> np.ndarray:
        """Apply penalties, biases and the grammar to logits [V]."""
        options = self.options
        if self.seen is not None:
            scaled = np.where(logits > 0, logits / options.repetition_penalty, logits * options.repetition_penalty)
            logits = np.where(self.seen, scaled, logits)
        if options.logit_bias or ((options.presence_penalty or options.frequency_penalty) and self.counts):
            logits = logits.copy()
            for token_id, count in self.counts.items():
                logits[token_id] -= options.presence_penalty + options.frequency_penalty * count
            for token_id, bias in options.logit_bias.items():
                logits[token_id] += bias
        if self.matcher is not None:
            mask = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
            if self.matcher.is_error():  # such as a limit on the work of a step
                raise UserError(f"the grammar allows nothing more: {show_error(self.matcher.get_error())}")
            allowed = np.unpackbits(mask, bitorder="little")[: len(logits)].astype(bool)
            logits = np.where(allowed, logits, -np.inf)
        return logits

    def _pick(self, logits: np.ndarray) -> int:
        """Choose a token id by temperature, top-k, top-p and min-p, from adjusted logits [V]."""
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
        with np.errstate(over="ignore"):  # a tiny temperature leaves only the most likely token
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


def check_logits(logits: np.ndarray) -> None:
    """Raise a `UserError` for logits that are not finite."""
    if not np.isfinite(logits.sum()):
        raise UserError("the model computed logits that are not finite: its weights are damaged, or overflow")


def describe_token(token_id: int, logits: np.ndarray, count: int) -> Token:
    """Make a token with its log-probability, and those of the `count` most likely ones, from logits [V] before it."""
    logprobs = logits - _log_sum_exp(logits)
    count = min(count, len(logits))
    best = np.argpartition(-logprobs, count - 1)[:count] if count else np.arange(0)
    best = best[np.argsort(-logprobs[best], kind="stable")]
    return Token(token_id, float(logprobs[token_id]), {int(i): float(logprobs[i]) for i in best})


def _log_sum_exp(logits: np.ndarray) -> float:
    """Compute the logarithm of the sum of exponentials of logits [V]."""
    top = logits.max()
    return float(top + np.log(np.exp((logits - top).astype(np.float64)).sum()))
