"""A request: a prompt, its sampling options, and the output so far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .detokenizer import Detokenizer
from .prompt_readers import PromptReader
from .sampling import FinishReason, Sampler, Token
from .sampling_options import SamplingOptions


@dataclass(eq=False)
class Request:
    """A prompt and the output generated for it so far.

    Attributes:
        prompt_ids: token ids of the prompt.
        options: how tokens are sampled.
        end_ids: token ids that end the output; none if the request ignores them.
        max_length: largest number of tokens of prompt and output together; None for no limit.
        make_sampler: builds a sampler in its initial state.
        make_detokenizer: builds what turns tokens into text and finds stop texts; None if only token ids are wanted.
        reader: what is found out about the prompt while it is computed; None for nothing. The prefix cache is not used
            then.
        output: the tokens generated so far. Whatever interrupts a step, a token is in this list together with all that
            belongs to it, or not at all.
        num_read: tokens of `output` that the reader of the request has received.
        finish_reason: None while the request is unfinished; then "stop" (an end token or a stop text), "length"
            (`max_new_tokens` or `max_length`), "cancelled" or "error".
        error: the exception behind the finish reason "error".
        is_submitted: whether the scheduler has received the request.
        slot: the slot of the backend that holds its keys and values; None while it waits and after it finished.
        num_cached_tokens: prompt tokens that were taken from the prefix cache.
        num_prefilled_tokens: prompt tokens that the slot holds, cached ones included.
    """

    prompt_ids: list[int]
    options: SamplingOptions
    end_ids: Sequence[int]
    max_length: int | None
    make_sampler: Callable[[], Sampler]
    make_detokenizer: Callable[[], Detokenizer] | None = None
    reader: PromptReader | None = None
    output: list[Token] = field(default_factory=list)
    num_read: int = 0
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    is_submitted: bool = False
    slot: int | None = None
    num_cached_tokens: int = 0
    num_prefilled_tokens: int = 0

    def __post_init__(self) -> None:
        self.sampler = self.make_sampler()
        self.detokenizer = None if self.make_detokenizer is None else self.make_detokenizer()

    @property
    def output_ids(self) -> list[int]:
        """List the token ids of the output."""
        return [token.id for token in self.output]

    @property
    def num_tokens(self) -> int:
        """Count the tokens of prompt and output."""
        return len(self.prompt_ids) + len(self.output)

    def append_token(self, logits: np.ndarray) -> None:
        """Sample the next token from logits [V], append it to the output, and set the finish reason if it is the last.

        An error, such as logits that are not finite, finishes the request and is not raised.
        """
        try:
            token = self.sampler.sample(logits)
            if self.detokenizer is not None:
                token.text = self.detokenizer.push(token.id)
            token.finish_reason = self._find_finish_reason(token.id)
            if token.finish_reason is not None and self.detokenizer is not None:
                token.text += self.detokenizer.finish()
        except BaseException as error:
            if not isinstance(error, Exception):
                if type(error).__name__ != "PanicException":  # of a library in Rust; others, such as Ctrl-C, go on
                    raise
                error = RuntimeError(f"a library failed: {error}")
            self.fail(error)
            return
        self.output.append(token)
        self.finish_reason = self.finish_reason or token.finish_reason  # it may have been cancelled within this step

    def restore(self) -> None:
        """Rebuild sampler and detokenizer to match the output, after an interruption at any point."""
        self.sampler = self.make_sampler()
        self.sampler.replay(self.output_ids)
        if self.make_detokenizer is not None:
            self.detokenizer = self.make_detokenizer()
            for token in self.output:
                self.detokenizer.push(token.id)
        if self.output and self.finish_reason is None:
            self.finish_reason = self.output[-1].finish_reason

    def fail(self, error: Exception) -> None:
        """Finish the request with an error, which its reader receives."""
        self.error, self.finish_reason = error, "error"

    def _find_finish_reason(self, token_id: int) -> FinishReason | None:
        """Tell why the output ends with this token, which is not yet appended; None if it does not."""
        options, matcher = self.options, self.sampler.matcher
        if (
            token_id in options.stop_token_ids
            or token_id in self.end_ids
            or (matcher is not None and matcher.is_stopped())
            or (self.detokenizer is not None and self.detokenizer.stopped is not None)
        ):
            return "stop"
        is_at_limit = self.max_length is not None and self.num_tokens + 1 >= self.max_length
        return "length" if is_at_limit or len(self.output) + 1 >= options.max_new_tokens else None
