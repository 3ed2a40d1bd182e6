"""A prompt and the answer to it, token by token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .options import SamplingOptions
from .sampling import Sampler, Token
from .text import TextStream


@dataclass(eq=False)
class Answer:
    """A prompt, and what has been written so far.

    Attributes:
        prompt: its tokens.
        options: how to draw.
        make_sampler: a sampler in the state of the beginning.
        make_text: what turns tokens into text, and knows the stop texts; None where only tokens are asked for.
        tokens: the answer's tokens. Whatever interrupts the engine, a token is in the list with all that belongs to it,
            or not at all.
        given: how many of them were given out.
        finish_reason: None while it goes on; then "stop" (an end token or a stop text), "length" (`max_new_tokens`, or
            the model's limit), "cancelled" or "error".
        error: what was raised, if it failed.
        cached: tokens of the prompt that did not have to be computed.
        taken: tokens of the prompt that its lane has taken in.
        taken_on: whether the engine knows of it.
    """

    prompt: list[int]
    options: SamplingOptions
    make_sampler: Callable[[], Sampler]
    make_text: Callable[[], TextStream] | None = None
    tokens: list[Token] = field(default_factory=list)
    given: int = 0
    finish_reason: str | None = None
    error: Exception | None = None
    cached: int = 0
    taken: int = 0
    taken_on: bool = False

    def __post_init__(self) -> None:
        self.sampler = self.make_sampler()
        self.text = self.make_text() if self.make_text is not None else None

    @property
    def written(self) -> list[int]:
        """Numbers of the answer's tokens."""
        return [token.id for token in self.tokens]

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt) + len(self.tokens)

    def write(self, logits: np.ndarray, end_ids: Sequence[int], limit: int | None) -> None:
        """Draw the next token, and say whether it ends the answer.

        Args:
            logits: [V].
            end_ids: tokens that end an answer.
            limit: tokens that prompt and answer may have, or None.
        """
        token = self.sampler.draw(logits)
        if self.text is not None:
            token.text = self.text.push(token.id)
        token.finish_reason = self._find_end(token.id, end_ids, limit)
        if token.finish_reason is not None and self.text is not None:
            token.text += self.text.finish()
        self.tokens.append(token)
        self.finish_reason = token.finish_reason

    def restore(self) -> None:
        """Bring sampler and text back to the last token in the list, after an interruption at any point."""
        self.sampler = self.make_sampler()
        self.sampler.replay(self.written)
        if self.make_text is not None:
            self.text = self.make_text()
            for token in self.tokens:
                self.text.push(token.id)
        if self.tokens and self.finish_reason is None:
            self.finish_reason = self.tokens[-1].finish_reason

    def _find_end(self, token: int, end_ids: Sequence[int], limit: int | None) -> str | None:
        options, matcher = self.options, self.sampler.matcher
        if (
            token in options.stop_token_ids
            or (token in end_ids and not options.ignore_eos)
            or (matcher is not None and matcher.is_stopped())
            or (self.text is not None and self.text.stopped is not None)
        ):
            return "stop"
        at_limit = limit is not None and self.length + 1 >= limit
        return "length" if at_limit or len(self.tokens) + 1 >= options.max_new_tokens else None
