"""The request that all protocols share: a prompt, sampling options and a number of choices, run on a model's worker."""

import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

from starlette.concurrency import run_in_threadpool

from ..inference import Engine, Request, SamplingOptions, Token
from ..inference.engine import PromptTooLongError
from ..inference.prompt_readers import PromptReader
from ..inference.texts import check_variables
from ..processor.token_codec import TooManyTokensError
from ..utils.errors import UserError
from ..utils.logging import get_logger
from .errors import ApiError
from .metrics import Metrics
from .model_entry import ModelEntry
from .registry import ModelRegistry
from .settings import ServeSettings
from .tool_prompts import fit_template
from .worker import TokenStream


logger = get_logger(__name__)

# What errors of the engine begin with, where a part of a request is not right.
OPTIONS = {"prompt", *(option.name for option in fields(SamplingOptions))}


@dataclass
class GenerationRequest:
    """What a client asks for, whatever protocol it speaks.

    Attributes:
        model: name of the model; the server's first if None.
        prompts: texts or token ids, each of which has `n` answers; none if there are messages.
        messages: a conversation as the chat template takes it; None if there are prompts.
        options: fields of `SamplingOptions` that the client gave.
        names: what the client calls options, `prompt` and `messages`, where its names differ from ours; errors use them.
        n: answers to each prompt.
        tools: definitions of functions that the template shows the model.
        continue_final_message: whether the answer goes on with the text of the last message.
        template_variables: further variables of the chat template.
        context: token ids before each prompt, which then begins without the token that begins a text.
        make_reader: makes what reads a prompt where nothing is generated; the request's `reader` has the result.
    """

    model: str | None
    prompts: Sequence[str | Sequence[int]] = ()
    messages: Sequence[dict[str, Any]] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    n: int = 1
    tools: Sequence[dict[str, Any]] | None = None
    continue_final_message: bool = False
    template_variables: dict[str, Any] = field(default_factory=dict)
    context: Sequence[int] = ()
    make_reader: Callable[[], PromptReader] | None = None

    def get_name(self, name: str) -> str:
        """Return what the client calls an option."""
        return self.names.get(name, name)

    @property
    def prompt_name(self) -> str:
        """Name the field that holds the prompt."""
        return self.get_name("prompt" if self.messages is None else "messages")


class Generation:
    """The choices of a running request. Iterating gives (number of the choice, new tokens); leaving its block ends it.

    Attributes:
        prompt_ids: token ids of the prompt, the first if there are several.
        choices: the tokens of each choice, those of a prompt side by side.
        n: the number of choices of each prompt.
        engine: what generates.
        with_log: whether prompt and answers are written to the log.
    """

    def __init__(
        self, entry: ModelEntry, streams: list[TokenStream], metrics: Metrics, n: int = 1, with_log: bool = False
    ) -> None:
        self.is_closed = False
        self.with_log = with_log
        self.entry = entry
        self.engine: Engine = entry.engine
        self.choices = streams
        self.n = n
        self.metrics = metrics
        self.prompt_ids = streams[0].request.prompt_ids

    def __enter__(self) -> "Generation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # whoever started it failed before a block was entered

    def close(self) -> None:
        """End what is still running, and give the model back; closing again does nothing."""
        if self.is_closed:
            return
        self.is_closed = True
        for stream in self.choices:
            stream.cancel()
            self.metrics.observe(self.entry.name, stream)
        self.entry.release()
        if self.with_log:  # elsewhere: whoever closes it may be the event loop, which long prompts would hold up
            threading.Thread(target=self._log).start()

    def _log(self) -> None:
        """Write prompts and answers to the log."""
        for stream in self.choices:
            prompt = self.engine.decode(stream.request.prompt_ids)
            answer = "".join(token.text for token in stream.tokens)
            logger.info("%s was asked %r and answered %r", self.entry.name, prompt, answer)

    async def __aiter__(self) -> AsyncIterator[tuple[int, list[Token]]]:
        """Yield the new tokens of each choice as they come.

        Raises:
            Exception: what a choice failed with.
        """
        unfinished = list(enumerate(self.choices))
        while unfinished:
            self.choices[0].news.clear()
            is_idle, going_on = True, []
            for number, stream in unfinished:
                tokens = stream.take()
                if tokens:
                    is_idle = False
                    yield number, tokens
                if stream.is_done:
                    stream.check()
                else:
                    going_on.append((number, stream))
            unfinished = going_on
            if is_idle and unfinished:
                await self.choices[0].news.wait()

    async def finish(self) -> list[list[Token]]:
        """Wait for all choices, and return their tokens; raises as iterating does."""
        async for _ in self:
            pass
        return [stream.tokens for stream in self.choices]

    def count_tokens(self) -> tuple[int, int, int]:
        """Count the tokens of each prompt once, those of them that came from the prefix cache, and those of all choices."""
        prompt = sum(len(stream.request.prompt_ids) for stream in self.choices[:: self.n])
        counts = [stream.request.num_cached_tokens for stream in self.choices]
        cached = sum(min(counts[start : start + self.n]) for start in range(0, len(counts), self.n))
        return prompt, cached, sum(len(stream.tokens) for stream in self.choices)


class Generator:
    """Starts generations: finds the model, makes the prompt, checks the limits.

    Args:
        settings: limits and default sampling options.
        registry: the models.
        metrics: what is counted.

    Attributes:
        running: generations by the ids that clients know them by; one that nobody uses any more is not kept.
    """

    def __init__(self, settings: ServeSettings, registry: ModelRegistry, metrics: Metrics) -> None:
        self.settings = settings
        self.registry = registry
        self.metrics = metrics
        self.running: WeakValueDictionary[str, Generation] = WeakValueDictionary()

    async def start(self, asked: GenerationRequest) -> Generation:
        """Queue what a client asks for.

        Raises:
            ApiError: there is no such model, it can't be loaded, a limit is exceeded, or the queue is full.
            UserError: an option or the prompt is not right.
        """
        try:
            return await self._start(asked)
        except UserError as error:
            raise explain_to_client(error, asked) from error

    async def _start(self, asked: GenerationRequest) -> Generation:
        sampling = self._choose_sampling(asked)
        entry = await self.registry.acquire(asked.model)
        try:
            requests = await run_in_threadpool(self._prepare, entry.engine, asked, sampling)
            streams = entry.worker.submit(requests)
        except BaseException:
            entry.release()
            raise
        return Generation(entry, streams, self.metrics, asked.n, self.settings.log_prompts)

    async def count_prompt(self, asked: GenerationRequest) -> int:
        """Count the tokens of what a client asks for, without an answer.

        Raises:
            ApiError: there is no such model, or it can't be loaded.
            UserError: the prompt is not right, or too long.
        """
        with await self.registry.acquire(asked.model) as entry:
            try:
                return sum(map(len, await run_in_threadpool(self._encode, entry.engine, asked)))
            except UserError as error:
                raise explain_to_client(error, asked) from error

    def _encode(self, engine: Engine, asked: GenerationRequest) -> list[list[int]]:
        """Make the token ids of each prompt."""
        limit = self._find_limit(engine)
        if asked.messages is not None:
            prompts = [self._render(engine, asked, limit)]
        else:
            prompts = [
                engine.encode(prompt, max_tokens=limit) if isinstance(prompt, str) else list(prompt)
                for prompt in asked.prompts
            ]
        if not asked.context:
            return prompts
        begin = getattr(engine.tokenizer, "bos_token_id", None)
        return [[*asked.context, *(ids[1:] if ids and ids[0] == begin else ids)] for ids in prompts]

    def _render(self, engine: Engine, asked: GenerationRequest, limit: int | None) -> list[int]:
        """Make the token ids of a conversation."""
        try:
            check_variables(asked.template_variables)
        except UserError as error:
            raise ApiError(400, str(error), "chat_template_kwargs", "invalid_request") from error
        messages, tools = fit_template(engine, asked.messages or (), asked.tools)
        return engine.render(
            messages,
            tools=tools,
            max_tokens=limit,
            continue_final_message=asked.continue_final_message,
            **asked.template_variables,
        )

    def _find_limit(self, engine: Engine) -> int | None:
        """Return how many tokens a prompt may have, by the model and the server; None if any number."""
        limits = [limit for limit in (self.settings.max_prompt_tokens, engine.backend.max_length) if limit is not None]
        return min(limits, default=None)

    def _choose_sampling(self, asked: GenerationRequest) -> SamplingOptions:
        """Check the options, on top of the server's defaults."""
        options = asked.options
        if options.get("max_new_tokens") is None:
            default = min(self.settings.default_max_tokens, self.settings.max_output_tokens)
            options = {**options, "max_new_tokens": default}
        sampling = SamplingOptions.from_names(options, self.settings.sampling)
        if sampling.max_new_tokens > self.settings.max_output_tokens:
            name = asked.get_name("max_new_tokens")
            raise ApiError(
                400,
                f"{name}={sampling.max_new_tokens} is more than the {self.settings.max_output_tokens} tokens that this "
                "server generates at most (--max-output-tokens)",
                param=name,
                code="max_tokens_too_large",
            )
        return sampling

    def _prepare(self, engine: Engine, asked: GenerationRequest, sampling: SamplingOptions) -> list[Request]:
        """Make the engine's requests, one for each choice; the seeds of choices follow one another."""
        self._check_number(engine, asked)
        try:
            prompts = self._encode(engine, asked)
        except TooManyTokensError as error:
            self._check_size(error.least, asked, "at least ")
            raise
        requests = []
        for ids in prompts:
            self._check_size(len(ids), asked)
            if asked.make_reader is not None:
                requests.append(engine.prepare_reading(ids, asked.make_reader()))
                continue
            seeds = [{}] * asked.n if sampling.seed is None else [{"seed": sampling.seed + k} for k in range(asked.n)]
            requests += [engine.prepare(ids, sampling, **seed) for seed in seeds]
        return requests

    def _check_number(self, engine: Engine, asked: GenerationRequest) -> None:
        """Refuse more answers at once than the server permits."""
        if not 1 <= asked.n <= self.settings.max_choices:
            raise ApiError(
                400, f"n={asked.n} must be from 1 to {self.settings.max_choices} (--max-choices)", param="n"
            )
        most, num_prompts = engine.backend.num_slots + self.settings.max_queue, max(1, len(asked.prompts))
        if num_prompts * asked.n > most:
            raise ApiError(
                400,
                f"{num_prompts} prompts with {asked.n} answers each are more than the {most} that this server takes at "
                "once (--max-queue); send several requests",
                param=asked.prompt_name,
            )

    def _check_size(self, count: int, asked: GenerationRequest, about: str = "") -> None:
        """Refuse a prompt that is larger than the server permits."""
        limit = self.settings.max_prompt_tokens
        if limit is not None and count > limit:
            raise ApiError(
                400,
                f"the prompt has {about}{count} tokens; this server takes {limit} at most (--max-prompt-tokens)",
                param=asked.prompt_name,
                code="context_length_exceeded",
            )


def explain_to_client(error: UserError, asked: GenerationRequest) -> ApiError | UserError:
    """Say what is wrong with a request by the names that the client uses, where it is about an option or the prompt."""
    if isinstance(error, TooManyTokensError | PromptTooLongError):
        return ApiError(400, str(error), asked.prompt_name, "context_length_exceeded")
    return rename_option(error, asked.names) or error


def rename_option(error: UserError, names: Mapping[str, str]) -> ApiError | None:
    """Say what is wrong with an option or the prompt under the name that the client gave it.

    Args:
        error: its message begins with our name, if it is about an option or the prompt.
        names: the client's names, by ours.

    Returns:
        The error for the client; None if it is about something else.
    """
    ours = next((name for name in OPTIONS if re.match(rf"{name}\b", str(error))), None)
    if ours is None:
        return None
    name = names.get(ours, ours)
    return ApiError(400, name + str(error).removeprefix(ours), name, "invalid_request")
