"""Answering several prompts at once, token by token, on any backend.

A step of the engine takes in a piece of the next prompt and one token for each running answer. Whoever waits for a token
drives the engine, so that answers that are asked for from several threads are computed together.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..processor.chat_encoding import encode_chat, encode_prompt
from ..utils.errors import UserError
from .backend import Backend
from .sampling import Grammars, Sampler, SamplingOptions, Token
from .text import TextStream


CACHED_PROMPTS = 4


@dataclass(eq=False)
class Answer:
    """A prompt, and what has been written so far.

    Attributes:
        prompt: its tokens.
        options: how to draw.
        tokens: the answer's tokens that have not been given out.
        written: all of the answer's tokens.
        text: turns its tokens into text, and knows its stop texts; None where only tokens are asked for.
        finish_reason: None while it goes on; then "stop" (an end token or a stop text), "length" or "cancelled".
        cached: tokens of the prompt that did not have to be computed.
        taken: tokens of the prompt that its lane has taken in.
        taken_on: whether the engine knows of it.
    """

    prompt: list[int]
    options: SamplingOptions
    sampler: Sampler
    tokens: deque[Token] = field(default_factory=deque)
    written: list[int] = field(default_factory=list)
    text: TextStream | None = None
    finish_reason: str | None = None
    cached: int = 0
    taken: int = 0
    taken_on: bool = False


class Engine:
    """Streams answers; `OnnxEngine` and `TorchEngine` say of what.

    Args:
        backend: computes the model.
        tokenizer: of `transformers`, or None where only tokens go in and out.
        end_ids: tokens that end an answer.
        name: of the model, for messages.

    Attributes:
        prompt_tokens_computed: tokens of prompts that went through the model, those of cached prefixes left out.
    """

    def __init__(self, backend: Backend, tokenizer: Any, end_ids: Sequence[int], name: str) -> None:
        self.backend = backend
        self.tokenizer = tokenizer
        self.end_ids = tuple(end_ids)
        self.name = name
        self.prompt_tokens_computed = 0
        self.grammars: Grammars | None = None
        self.lock = threading.RLock()
        self.waiting: deque[Answer] = deque()
        self.running: list[Answer] = []  # the lane of each is its place
        self.filling: Answer | None = None  # its lane is the one after those running
        self.saved: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    # Tokens.

    def stream(self, prompt_ids: Sequence[int], **options: Any) -> Generator[int]:
        """The numbers of an answer's tokens as they come, its end token included.

        Args:
            prompt_ids: tokens of the prompt.
            options: those of `SamplingOptions`. Stop texts end the stream after the token that completes one.

        Raises:
            UserError: at once, for an unknown option, a value out of range or a prompt that does not fit.
        """
        return (token.id for token in self.stream_tokens(prompt_ids, **options))

    def stream_tokens(self, prompt_ids: Sequence[int], **options: Any) -> Generator[Token]:
        """As `stream`, with log-probabilities if `logprobs` asks for them."""
        checked = SamplingOptions.from_names(options)
        return self.follow(self._make_answer(prompt_ids, checked, with_text=bool(checked.stop)))

    def submit(self, prompt_ids: Sequence[int], **options: Any) -> Answer:
        """Take on a prompt now; `follow`, or anyone's steps, write its answer. `cancel` frees it early.

        What the other methods return begins when it is first asked for a token.
        """
        has_text = self.tokenizer is not None
        answer = self._make_answer(prompt_ids, SamplingOptions.from_names(options), has_text)
        self._take_on(answer)
        return answer

    def _take_on(self, answer: Answer) -> None:
        with self.lock:
            if not answer.taken_on:
                answer.taken_on = True
                self.waiting.append(answer)

    def follow(self, answer: Answer) -> Generator[Token]:
        """The tokens of an answer as they come. Closing the iterator cancels it."""
        self._take_on(answer)
        try:
            while True:
                with self.lock:
                    while not answer.tokens and answer.finish_reason is None:
                        self._step()
                    if not answer.tokens:
                        return
                    token = answer.tokens.popleft()
                yield token
        finally:
            self.cancel(answer)

    def cancel(self, answer: Answer) -> None:
        """Stop an answer and free its lane. A finished one stays as it is."""
        with self.lock:
            if answer in self.waiting:
                self.waiting.remove(answer)
            if answer is self.filling:
                self.backend.clear(len(self.running))
                self.filling = None
            if answer in self.running:
                self._release(answer)
            if answer.finish_reason is None:
                answer.finish_reason = "cancelled"

    # Text.

    def generate(self, prompt: str | Sequence[int], **options: Any) -> str:
        """The text of an answer to a text (or to tokens)."""
        return "".join(self.stream_text(prompt, **options))

    def generate_batch(self, prompts: Iterable[str | Sequence[int]], **options: Any) -> list[str]:
        """The texts of the answers to several prompts, computed together."""
        answers = [self._make_text_answer(prompt, options) for prompt in prompts]
        for answer in answers:
            self._take_on(answer)
        try:
            return ["".join(self.follow_text(answer)) for answer in answers]
        finally:
            for answer in answers:
                self.cancel(answer)

    def stream_text(self, prompt: str | Sequence[int], **options: Any) -> Generator[str]:
        """Pieces of the answer's text as they come, without the stop text."""
        return self.follow_text(self._make_text_answer(prompt, options))

    def follow_text(self, answer: Answer) -> Generator[str]:
        """Pieces of the text of a submitted answer."""
        self._need_tokenizer("text")
        for token in self.follow(answer):
            if token.text:
                yield token.text

    def chat(self, messages: Sequence[dict[str, str]], **options: Any) -> Generator[str]:
        """Pieces of the answer to a conversation, by the model's chat template."""
        return self.stream_text(self.render(messages), **options)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with those that begin one; a begin token that it spells out itself is not doubled.

        Raises:
            ValueError: the text is not valid Unicode.
        """
        self._need_tokenizer("text")
        return encode_prompt(self.tokenizer, text)

    def render(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The tokens of a conversation up to where the answer begins; what is typed in it never is a control token.

        Raises:
            ValueError: the model has no chat template, or it refuses the conversation.
        """
        self._need_tokenizer("conversations")
        if not getattr(self.tokenizer, "chat_template", None):
            raise UserError(f"{self.name} has no chat template: it was not trained to answer; use a plain prompt")
        return encode_chat(self.tokenizer, messages, add_generation_prompt=True).ids

    def _need_tokenizer(self, what: str) -> None:
        if self.tokenizer is None:
            raise UserError(f"{self.name} has no tokenizer, which {what} need; pass token numbers to stream()")

    # One step.

    def _make_text_answer(self, prompt: str | Sequence[int], options: dict[str, Any]) -> Answer:
        self._need_tokenizer("text")
        ids = self.encode(prompt) if isinstance(prompt, str) else prompt
        return self._make_answer(ids, SamplingOptions.from_names(options), with_text=True)

    def _make_answer(self, prompt_ids: Sequence[int], options: SamplingOptions, with_text: bool) -> Answer:
        prompt = [int(token) for token in prompt_ids]
        size, limit = self.backend.vocab_size, self.backend.max_length
        if not prompt:
            raise UserError("the prompt is empty; give at least one token, such as the one that begins a text")
        outside = next((token for token in prompt if not 0 <= token < size), None)
        if outside is not None:
            raise UserError(f"the prompt holds token {outside}; {self.name} has 0 to {size - 1}: another tokenizer's?")
        if limit is not None and len(prompt) >= limit:
            raise UserError(
                f"the prompt has {len(prompt)} tokens; {self.name} takes {limit} with the answer. Shorten the prompt, or "
                "export the model with a larger --max-length"
            )
        if options.stop:
            self._need_tokenizer("stop texts")
        matcher = None
        if options.json_schema is not None:
            self._need_tokenizer("JSON schemas")
            self.grammars = self.grammars or Grammars(self.tokenizer, size, self.end_ids)
            matcher = self.grammars.match(options.json_schema)
        text = TextStream(self.tokenizer, options.stop) if with_text else None
        return Answer(prompt, options, Sampler(options, prompt, size, matcher), text=text)

    def _step(self) -> None:
        """Take in a piece of a prompt, and a token for every running answer."""
        if self.filling is None and self.waiting and len(self.running) < self.backend.lanes:
            self.filling = self.waiting.popleft()
            self._begin(self.filling)
        if self.running:
            tokens = np.array([answer.written[-1] for answer in self.running])
            logits = self.backend.step(len(self.running), tokens)
            for answer, row in zip(list(self.running), logits, strict=True):
                self._write(answer, row)
        if self.filling is not None:
            self._fill(self.filling)

    def _begin(self, answer: Answer) -> None:
        """Start a lane with the longest saved beginning of the prompt; one token at least is computed."""
        lane = len(self.running)
        best, length = None, 0
        for ids, saved in self.saved.items():
            shared = _count_shared(ids, answer.prompt[:-1])
            # A state can be cut back only while nothing has been evicted.
            usable = shared if len(ids) <= self.backend.keep_window_size or shared == len(ids) else 0
            if usable > length:
                best, length = (ids, saved), usable
        if best is None:
            self.backend.clear(lane)
        else:
            self.saved.move_to_end(best[0])
            self.backend.load(lane, best[1], length)
        answer.cached = answer.taken = length

    def _fill(self, answer: Answer) -> None:
        lane, chunk = len(self.running), self.backend.chunk_size
        ids = np.array(answer.prompt[answer.taken : answer.taken + chunk])
        logits = self.backend.extend(lane, ids)
        answer.taken += len(ids)
        self.prompt_tokens_computed += len(ids)
        if answer.taken < len(answer.prompt):
            return
        # What an answer past the window leaves can't be cut back to the prompt.
        if len(answer.prompt) + answer.options.max_new_tokens > self.backend.keep_window_size:
            self._save(tuple(answer.prompt), lane)
        self.filling = None
        self.running.append(answer)
        self._write(answer, logits)

    def _write(self, answer: Answer, logits: np.ndarray) -> None:
        options = answer.options
        token = answer.sampler.draw(logits)
        answer.tokens.append(token)
        answer.written.append(token.id)
        if answer.text is not None:
            token.text = answer.text.push(token.id)
        length, limit = len(answer.prompt) + len(answer.written), self.backend.max_length
        matcher = answer.sampler.matcher
        if (
            token.id in options.stop_token_ids
            or (token.id in self.end_ids and not options.ignore_eos)
            or (matcher is not None and matcher.is_stopped())
            or (answer.text is not None and answer.text.stopped is not None)
        ):
            answer.finish_reason = "stop"
        elif len(answer.written) >= options.max_new_tokens or (limit is not None and length >= limit):
            answer.finish_reason = "length"
        if answer.finish_reason is not None:
            if answer.text is not None:
                token.text += answer.text.finish()
            self._release(answer)

    def _release(self, answer: Answer) -> None:
        """Save the lane for prompts that go on from it, and let the last lanes move up."""
        lane = self.running.index(answer)
        taken = self.backend.get_length(lane)
        self._save(tuple((answer.prompt + answer.written)[:taken]), lane)
        last = len(self.running) - 1
        self.running[lane] = self.running[last]
        self.running.pop()
        if lane != last:
            self.backend.move(last, lane)
        if self.filling is not None:
            self.backend.move(last + 1, last)
        else:
            self.backend.clear(last)

    def _save(self, ids: tuple[int, ...], lane: int) -> None:
        """Keep a copy of a lane; a shorter one that it contains is no longer needed, unless keys were evicted since."""
        if len(ids) <= self.backend.keep_window_size:
            for known in [known for known in self.saved if ids[: len(known)] == known]:
                del self.saved[known]
        self.saved[ids] = self.backend.save(lane)
        while len(self.saved) > CACHED_PROMPTS:
            self.saved.popitem(last=False)


def _count_shared(first: Sequence[int], second: Sequence[int]) -> int:
    length = min(len(first), len(second))
    differ = np.flatnonzero(np.asarray(first[:length]) != np.asarray(second[:length]))
    return int(differ[0]) if len(differ) else length


def find_end_ids(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """Tokens that end an answer: those named, and the tokenizer's."""
    own = [] if tokenizer is None or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return sorted({*ids, *own})
