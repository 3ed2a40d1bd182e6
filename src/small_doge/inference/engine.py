"""Answering several prompts at once, token by token, on any backend.

A step of the engine takes in a piece of the next prompt and one token for each running answer. Whoever waits for a token
drives the engine, so that answers that are asked for from several threads are computed together.
"""

import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..processor.chat_encoding import encode_chat, encode_prompt
from ..processor.tokenizer import build_generation_config
from ..utils.errors import UserError
from ..utils.logging import get_logger
from .answer import Answer
from .backend import Backend
from .options import SamplingOptions, check_tokens
from .sampling import Grammars, Sampler, Token
from .text import TextStream


logger = get_logger(__name__)

CACHED_PROMPTS = 4


class Engine:
    """Streams answers; `OnnxEngine` and `TorchEngine` say of what.

    Args:
        backend: computes the model.
        tokenizer: of `transformers`, or None where only tokens go in and out.
        end_ids: tokens that end an answer.
        name: of the model, for messages.
        trained_length: tokens of the longest text that the model was trained on; None if unknown. It may write longer
            ones, less well.

    Attributes:
        prompt_tokens_computed: tokens of prompts that went through the model, those of cached prefixes left out.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: Any,
        end_ids: Sequence[int],
        name: str,
        trained_length: int | None = None,
    ) -> None:
        self.backend = backend
        self.tokenizer = tokenizer
        self.end_ids = tuple(end_ids)
        self.name = name
        self.trained_length = trained_length
        self.prompt_tokens_computed = 0
        self.grammars: Grammars | None = None
        self.lock = threading.RLock()
        self.waiting: deque[Answer] = deque()
        self.running: list[Answer] = []  # the lane of each is its place
        self.filling: Answer | None = None  # its lane is the one after those running
        self.saved: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self.busy = False  # lanes are being changed
        self.dirty = False  # they are, or a change was interrupted

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
        """The tokens of an answer as they come. Closing the iterator cancels it.

        Raises:
            Exception: what ended this answer with the finish reason "error".
        """
        self._take_on(answer)
        try:
            while True:
                with self.lock:
                    while answer.given == len(answer.tokens) and answer.finish_reason is None:
                        self._step()
                    if answer.given == len(answer.tokens):
                        break
                    token = answer.tokens[answer.given]
                    answer.given += 1
                yield token
            if answer.error is not None:
                raise answer.error
        finally:
            self.cancel(answer)

    def cancel(self, answer: Answer) -> None:
        """Stop an answer and free its lane. A finished one stays as it is."""
        with self.lock:
            if answer.finish_reason is None:
                answer.finish_reason = "cancelled"
            if self.busy:  # inside a step, where generators may be collected; the step drops it
                return
            if self.dirty:  # a step was interrupted, and the next one sets up the lanes
                self._forget_finished()
                return
            try:
                with self._changing():
                    self._drop_finished()
            except Exception:  # noqa: BLE001 (the lanes stay torn, and the next step computes them again)
                self._forget_finished()

    def explain_end(self, answer: Answer) -> str | None:
        """Why an answer ended before its model ended it, for people; None if it did not."""
        if answer.finish_reason == "error":
            return f"it failed: {answer.error}"
        if answer.finish_reason == "cancelled":
            return "it was stopped"
        if answer.finish_reason != "length":
            return None
        if len(answer.tokens) >= answer.options.max_new_tokens:
            return f"cut off at max_new_tokens={answer.options.max_new_tokens}"
        return f"cut off at {self.backend.max_length} tokens of prompt and answer, which is the model's limit"

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
        prompt = check_tokens("prompt", prompt_ids)
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
        make_text = partial(TextStream, self.tokenizer, options.stop) if with_text else None
        return Answer(prompt, options, partial(self._make_sampler, prompt, self._fix_seed(options)), make_text)

    def _fix_seed(self, options: SamplingOptions) -> SamplingOptions:
        """With a seed even where none was asked for, so that draws can be made again."""
        return options if options.seed is not None else replace(options, seed=secrets.randbits(64))

    def _make_sampler(self, prompt: Sequence[int], options: SamplingOptions) -> Sampler:
        matcher = None
        if options.json_schema is not None:
            self._need_tokenizer("JSON schemas")
            self.grammars = self.grammars or Grammars(self.tokenizer, self.backend.vocab_size, self.end_ids)
            matcher = self.grammars.match(options.json_schema)
        return Sampler(options, prompt, self.backend.vocab_size, matcher)

    def _step(self) -> None:
        """Take in a piece of a prompt, and a token for every running answer.

        An exception ends the answers that were being computed, and no other. If lanes could not be arranged, the next
        step begins with `_recover`; if even that fails, all answers end with the error. What is no `Exception`, such
        as Ctrl-C, passes through, and the next step recovers from it too.

        Raises:
            UserError: called by something that the step itself called.
        """
        if self.busy:
            raise UserError(
                f"{self.name} was asked from within a step of its own; ask after the step, or another engine"
            )
        is_torn = self.dirty
        try:
            with self._changing():
                if is_torn:
                    self._recover()
                self._drop_finished()
                self._take_next()
                if self.running:
                    self._advance(list(self.running))
                if self.filling is not None and self.filling.finish_reason is None:
                    self._fill(self.filling)
                self._drop_finished()
        except Exception as error:  # noqa: BLE001
            if is_torn:
                filling = [self.filling] if self.filling is not None else []
                _fail([a for a in (*self.running, *filling, *self.waiting) if a.finish_reason is None], error)
            self._forget_finished()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Lanes and lists count as torn until the change is complete."""
        self.dirty = self.busy = True
        try:
            yield
            self.dirty = False
        finally:
            self.busy = False

    def _take_next(self) -> None:
        """Give the longest waiting answer the free lane, if there is one."""
        if self.filling is None and self.waiting and len(self.running) < self.backend.lanes:
            self.filling = self.waiting[0]
            self.waiting.popleft()
            try:
                self._begin(self.filling)
            except Exception as error:  # noqa: BLE001
                _fail([self.filling], error)

    def _advance(self, answers: list[Answer]) -> None:
        tokens = np.array([answer.tokens[-1].id for answer in answers])
        try:
            logits = self.backend.step(len(answers), tokens)
        except Exception as error:  # noqa: BLE001 (whatever it is, it ends these answers alone)
            _fail(answers, error)
            return
        for answer, row in zip(answers, logits, strict=True):
            self._write(answer, row)

    def _write(self, answer: Answer, logits: np.ndarray) -> None:
        try:
            answer.write(logits, self.end_ids, self.backend.max_length)
        except Exception as error:  # noqa: BLE001
            _fail([answer], error)

    def _recover(self) -> None:
        """After an interruption at any point: compute the lanes of all answers again, from what they have written.

        It may be interrupted itself, and starts over then.
        """
        known = {id(a): a for a in (*self.running, *([self.filling] if self.filling else []), *self.waiting)}
        alive = [answer for answer in known.values() if answer.finish_reason is None]
        self.waiting = deque([a for a in alive if not a.tokens])
        self.running = [a for a in alive if a.tokens]
        self.filling = None
        for lane in range(self.backend.lanes):
            self.backend.clear(lane)
        for lane, answer in enumerate((*self.running, *self.waiting)):
            try:
                answer.restore()
                if answer.tokens:
                    self._extend(lane, (answer.prompt + answer.written)[:-1])
            except Exception as error:  # noqa: BLE001
                _fail([answer], error)

    def _forget_finished(self) -> None:
        """Take finished answers off the lists, and leave the lanes alone."""
        self.waiting = deque([answer for answer in self.waiting if answer.finish_reason is None])
        self.running = [answer for answer in self.running if answer.finish_reason is None]
        if self.filling is not None and self.filling.finish_reason is not None:
            self.filling = None

    def _extend(self, lane: int, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), self.backend.chunk_size):
            self.backend.extend(lane, np.array(ids[start : start + self.backend.chunk_size]))

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
        try:
            logits = self.backend.extend(lane, ids)
        except Exception as error:  # noqa: BLE001
            _fail([answer], error)
            return
        answer.taken += len(ids)
        self.prompt_tokens_computed += len(ids)
        if answer.taken < len(answer.prompt):
            return
        # What an answer past the window leaves can't be cut back to the prompt.
        if len(answer.prompt) + answer.options.max_new_tokens > self.backend.keep_window_size:
            self._save(tuple(answer.prompt), lane)
        self.running.append(answer)
        self.filling = None
        self._write(answer, logits)

    def _drop_finished(self) -> None:
        """Free the lanes of finished answers, and let the last lanes move up."""
        for answer in [answer for answer in self.waiting if answer.finish_reason is not None]:
            self.waiting.remove(answer)
        if self.filling is not None and self.filling.finish_reason is not None:
            self.backend.clear(len(self.running))
            self.filling = None
        for answer in [answer for answer in self.running if answer.finish_reason is not None]:
            self._release(answer)

    def _release(self, answer: Answer) -> None:
        """Save the lane for prompts that go on from it, and let the last lanes move up."""
        lane = self.running.index(answer)
        if answer.error is None:
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
        try:
            saved = self.backend.save(lane)
        except Exception as error:  # noqa: BLE001 (a copy only saves work)
            logger.warning("%s: a computed prompt could not be kept for later (%r)", self.name, error)
            return
        if len(ids) <= self.backend.keep_window_size:
            for known in [known for known in self.saved if ids[: len(known)] == known]:
                del self.saved[known]
        self.saved[ids] = saved
        while len(self.saved) > CACHED_PROMPTS:
            self.saved.popitem(last=False)


def _fail(answers: Sequence[Answer], error: Exception) -> None:
    for answer in answers:
        answer.error, answer.finish_reason = error, "error"


def _count_shared(first: Sequence[int], second: Sequence[int]) -> int:
    length = min(len(first), len(second))
    differ = np.flatnonzero(np.asarray(first[:length]) != np.asarray(second[:length]))
    return int(differ[0]) if len(differ) else length


def find_end_ids(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """Tokens that end an answer: those named, and the tokenizer's."""
    own = [] if tokenizer is None else build_generation_config(tokenizer).eos_token_id
    return sorted({*ids, *(token for token in own if token is not None)})
