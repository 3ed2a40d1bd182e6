"""The request that all protocols share: a prompt, sampling options and a number of choices, run on a model's worker."""

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

from starlette.concurrency import run_in_threadpool

from ..inference import Engine, Request, SamplingOptions, Token
from ..inference.prompt_readers import PromptReader
from ..processor.chat_encoding import TooManyTokensError
from ..utils.errors import UserError
from ..utils.logging import get_logger
from .errors import ApiError
from .metrics import Metrics
from .registry import ModelEntry, ModelRegistry
from .settings import ServeSettings
from .tool_prompts import fit_template
from .worker import TokenStream


logger = get_logger(__name__)


@dataclass
class GenerationRequest:
    """What a client asks for, whatever protocol it speaks.

    Attributes:
        model: name of the model; the server's first if None.
        prompt: a text or token ids; None if there are messages.
        prompts: several of them in place of one, each of which has `n` answers.
        messages: a conversation as the chat template takes it; None if there is a prompt.
        options: fields of `SamplingOptions` that the client gave.
        n: answers to generate.
        tools: definitions of functions that the template shows the model.
        continue_final_message: whether the answer goes on with the text of the last message.
        template_variables: further variables of the chat template.
        context: token ids before the prompt, which then begins without the token that begins a text.
        make_reader: makes what reads a prompt where nothing is generated; the request's `reader` has the result.
    """

    model: str | None
    prompt: str | Sequence[int] | None = None
    prompts: Sequence[str | Sequence[int]] = ()
    messages: Sequence[dict[str, Any]] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    n: int = 1
    tools: Sequence[dict[str, Any]] | None = None
    continue_final_message: bool = False
    template_variables: dict[str, Any] = field(default_factory=dict)
    context: Sequence[int] = ()
    make_reader: Callable[[], PromptReader] | None = None


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
        sampling = self._choose_sampling(asked.options)
        entry = await self.registry.acquire(asked.model)
        try:
            requests = await run_in_threadpool(self._prepare, entry.engine, asked, sampling)
            streams = entry.worker.submit(requests)
        except BaseException:
            entry.release()
            raise
        return Generation(entry, streams, self.metrics, asked.n, self.settings.log_prompts)

    def encode(self, engine: Engine, asked: GenerationRequest) -> list[int]:
        """Make the prompt's token ids."""
        ids = self._encode_alone(engine, asked)
        if not asked.context:
            return ids
        begin = getattr(engine.tokenizer, "bos_token_id", None)
        return [*asked.context, *(ids[1:] if ids and ids[0] == begin else ids)]

    def _encode_alone(self, engine: Engine, asked: GenerationRequest) -> list[int]:
        """Make the token ids of the prompt without what stands before it."""
        if asked.messages is not None:
            taken = {"messages", "tools", "continue_final_message", "max_tokens"}.intersection(
                asked.template_variables
            )
            if taken:
                raise UserError(
                    f"{min(taken)} can't be a variable of the chat template; send it as a field of its own"
                )
            messages, tools = fit_template(engine, asked.messages, asked.tools)
            return engine.render(
                messages,
                tools=tools,
                max_tokens=self._find_limit(engine),
                continue_final_message=asked.continue_final_message,
                **asked.template_variables,
            )
        if asked.prompt is None:
            raise UserError("the request has neither a prompt nor messages")
        if isinstance(asked.prompt, str):
            return engine.encode(asked.prompt, max_tokens=self._find_limit(engine))
        return list(asked.prompt)

    def _find_limit(self, engine: Engine) -> int | None:
        """Return how many tokens a prompt may have, by the model and the server; None if any number."""
        limits = [limit for limit in (self.settings.max_prompt_tokens, engine.backend.max_length) if limit is not None]
        return min(limits, default=None)

    def _choose_sampling(self, options: dict[str, Any]) -> SamplingOptions:
        """Check the options, on top of the server's defaults."""
        if options.get("max_new_tokens") is None:
            default = min(self.settings.default_max_tokens, self.settings.max_output_tokens)
            options = {**options, "max_new_tokens": default}
        sampling = SamplingOptions.from_names(options, self.settings.sampling)
        if sampling.max_new_tokens > self.settings.max_output_tokens:
            raise ApiError(
                400,
                f"{sampling.max_new_tokens} tokens were asked for; this server generates {self.settings.max_output_tokens} "
                "at most (--max-output-tokens)",
                param="max_tokens",
                code="max_tokens_too_large",
            )
        return sampling

    def _prepare(self, engine: Engine, asked: GenerationRequest, sampling: SamplingOptions) -> list[Request]:
        """Make the engine's requests, one for each choice; the seeds of choices follow one another."""
        if not 1 <= asked.n <= self.settings.max_choices:
            raise ApiError(400, f"n={asked.n} must be from 1 to {self.settings.max_choices}", param="n")
        prompts = asked.prompts or [asked.prompt]
        most = engine.backend.num_slots + self.settings.max_queue
        if len(prompts) * asked.n > most:
            raise ApiError(
                400,
                f"{len(prompts)} prompts with {asked.n} answers each are more than the {most} that this server takes at "
                "once (--max-queue); send several requests",
                param="prompt",
            )
        requests = []
        for prompt in prompts:
            try:
                ids = self.encode(engine, replace(asked, prompt=prompt))
            except TooManyTokensError as error:
                self._check_size(error.least, asked, "at least ")
                raise ApiError(400, str(error), _name_prompt(asked), "context_length_exceeded") from error
            self._check_size(len(ids), asked)
            if asked.make_reader is not None:
                requests.append(engine.prepare_reading(ids, asked.make_reader()))
                continue
            seeds = [{}] * asked.n if sampling.seed is None else [{"seed": sampling.seed + k} for k in range(asked.n)]
            requests += [engine.prepare(ids, sampling, **seed) for seed in seeds]
        return requests

    def _check_size(self, count: int, asked: GenerationRequest, about: str = "") -> None:
        """Refuse a prompt that is larger than the server permits."""
        limit = self.settings.max_prompt_tokens
        if limit is not None and count > limit:
            raise ApiError(
                400,
                f"the prompt has {about}{count} tokens; this server takes {limit} at most (--max-prompt-tokens)",
                param=_name_prompt(asked),
                code="context_length_exceeded",
            )


def _name_prompt(asked: GenerationRequest) -> str:
    """Return the field of a request that holds its prompt."""
    return "messages" if asked.messages is not None else "prompt"
