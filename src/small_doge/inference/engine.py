"""The engine: prompts and conversations in, text and tokens out.

An engine turns each call into a `Request`, and advances its `Scheduler` until the request has the token that the caller
waits for. Calls from several threads are computed together.
"""

import secrets
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..utils.errors import UserError
from .backend import Backend
from .detokenizer import Detokenizer, Tokenizer
from .grammars import Grammars
from .prompt_readers import Embedder, Inspection, PromptReader, Scorer
from .request import Request
from .sampling import Sampler, Token
from .sampling_options import SamplingOptions, check_integer, check_tokens
from .scheduler import Scheduler
from .texts import Texts


class PromptTooLongError(UserError):
    """A prompt has more tokens than the model takes."""


class Engine(Texts):
    """Generates text with any backend; `OnnxEngine` and `TorchEngine` open a model for it.

    The keyword arguments `options` of its methods are the fields of `SamplingOptions`.

    Args:
        backend: computes the model.
        tokenizer: a fast tokenizer of `transformers`; None if only token ids go in and out.
        end_ids: token ids that end an output.
        name: name of the model, for messages.
        trained_length: tokens of the longest text that the model was trained on; None if unknown. It may generate
            longer ones, of lower quality.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: Tokenizer | None,
        end_ids: Sequence[int],
        name: str,
        trained_length: int | None = None,
    ) -> None:
        super().__init__(tokenizer, backend.vocab_size, name)
        self.backend = backend
        self.scheduler = Scheduler(backend, name)
        self.end_ids = tuple(end_ids)
        self.trained_length = trained_length
        self.grammars: Grammars | None = None

    # Text.

    def generate(self, prompt: str | Sequence[int], **options: Any) -> str:
        """Generate the text that follows a prompt, which is a text or token ids.

        Raises:
            UserError: an unknown option, a value out of range, a prompt that does not fit, or a model without tokenizer.
        """
        request = self._make_request(self._to_ids(prompt), options)
        text = ""
        for token in self.follow(request):
            text += token.text
        return text

    def generate_batch(self, prompts: Iterable[str | Sequence[int]], **options: Any) -> list[str]:
        """Generate the texts that follow several prompts, computed together; raises as `generate` does."""
        requests = [self._make_request(self._to_ids(prompt), options) for prompt in prompts]
        for request in requests:
            self.scheduler.submit(request)
        try:
            return ["".join(self.follow_text(request)) for request in requests]
        finally:
            for request in requests:
                self.cancel(request)

    def stream_text(self, prompt: str | Sequence[int], **options: Any) -> Generator[str]:
        """Generate text piece by piece, without the stop text; raises at once, as `generate` does."""
        return self.follow_text(self._make_request(self._to_ids(prompt), options))

    def chat(self, messages: Sequence[dict[str, Any]], **options: Any) -> Generator[str]:
        """Generate the next message of a conversation piece by piece; raises at once, as `render` and `generate` do."""
        return self.stream_text(self.render(messages), **options)

    # Token ids.

    def stream(self, prompt_ids: Sequence[int], **options: Any) -> Generator[int]:
        """Generate token ids one by one, the end token included.

        Stop texts end the stream after the token that completes one.

        Raises:
            UserError: at once, for an unknown option, a value out of range or a prompt that does not fit.
        """
        return (token.id for token in self.stream_tokens(prompt_ids, **options))

    def stream_tokens(self, prompt_ids: Sequence[int], **options: Any) -> Generator[Token]:
        """Generate tokens with their log-probabilities, if `logprobs` asks for them; raises as `stream` does."""
        return self.follow(self._make_request(prompt_ids, options, with_text=False))

    # Requests.

    def submit(self, prompt_ids: Sequence[int], sampling: SamplingOptions | None = None, **options: Any) -> Request:
        """Queue a request now; `follow` reads its output, and `cancel` ends it early.

        The generators that other methods return queue their request when the first token is asked of them.

        Args:
            prompt_ids: token ids of the prompt.
            sampling: sampling options; the defaults if None.
            options: single options, which replace those of `sampling`.

        Raises:
            UserError: as `stream` does.
        """
        request = self.prepare(prompt_ids, sampling, **options)
        self.scheduler.submit(request)
        return request

    def prepare(self, prompt_ids: Sequence[int], sampling: SamplingOptions | None = None, **options: Any) -> Request:
        """Check a prompt and its options, and make a request of them, which is not yet queued; see `submit`."""
        return self._make_request(prompt_ids, options, sampling, with_text=self.tokenizer is not None)

    def prepare_reading(self, prompt_ids: Sequence[int], reader: PromptReader) -> Request:
        """Make a request that lets a `Scorer` or an `Embedder` read a prompt, and generates nothing; see `submit`.

        Raises:
            UserError: a prompt that does not fit, or a model that can't be read so.
        """
        return self._make_request(prompt_ids, {}, with_text=False, reader=reader)

    def follow(self, request: Request) -> Generator[Token]:
        """Yield the tokens of a request as they are generated. Closing the generator cancels the request.

        Raises:
            Exception: what finished the request with the reason "error".
        """
        scheduler = self.scheduler
        scheduler.submit(request)
        try:
            while True:
                with scheduler.lock:
                    while request.num_read == len(request.output) and request.finish_reason is None:
                        scheduler.step()
                    if request.num_read == len(request.output):
                        break
                    token = request.output[request.num_read]
                    request.num_read += 1
                yield token
            if request.error is not None:
                raise request.error
        finally:
            scheduler.cancel(request)

    def follow_text(self, request: Request) -> Generator[str]:
        """Yield the pieces of a request's text as they are generated; raises as `follow` does."""
        self._need_tokenizer("text")
        for token in self.follow(request):
            if token.text:
                yield token.text

    def cancel(self, request: Request) -> None:
        """Finish a request now and free its slot. A finished one stays as it is."""
        self.scheduler.cancel(request)

    def explain_finish(self, request: Request) -> str | None:
        """Say in words why a request finished before the model ended its output; None if it did not."""
        if request.finish_reason == "error":
            return f"it failed: {request.error}"
        if request.finish_reason == "cancelled":
            return "it was stopped"
        if request.finish_reason != "length":
            return None
        if len(request.output) >= request.options.max_new_tokens:
            return f"cut off at max_new_tokens={request.options.max_new_tokens}"
        return f"cut off at {request.max_length} tokens of prompt and answer, which is the model's limit"

    # Looking inside.

    def score(self, prompt_ids: Sequence[int], top: int = 0) -> list[Token]:
        """Find the probability of each token given the ones before it.

        Other requests go on meanwhile, and the prefix cache is neither used nor filled.

        Args:
            prompt_ids: token ids of a text.
            top: number of most likely tokens to report at each place.

        Returns:
            The tokens with their log-probabilities; the first has none.

        Raises:
            UserError: a prompt that does not fit.
        """
        return self.inspect(prompt_ids, top).tokens

    def inspect(self, prompt_ids: Sequence[int], top: int = 10) -> Inspection:
        """Find the probability of each token, as `score` does, and which tokens each key-value head keeps at the end."""
        scorer = Scorer(check_integer("top", top, 0, 1000), with_keys=True)
        self._read(prompt_ids, scorer)
        return Inspection(scorer.tokens, scorer.kept)

    def embed(self, prompt_ids: Sequence[int]) -> np.ndarray:
        """Return the mean of the last hidden states over a prompt, [D] float32.

        A model that was trained to write gives weak embeddings.

        Raises:
            UserError: a prompt that does not fit, or an export of a version that had no embeddings.
        """
        embedder = Embedder()
        self._read(prompt_ids, embedder)
        assert embedder.embedding is not None
        return embedder.embedding

    def _read(self, prompt_ids: Sequence[int], reader: PromptReader) -> None:
        """Let a reader read a prompt."""
        for _ in self.follow(self.prepare_reading(prompt_ids, reader)):
            pass

    # Memory.

    @property
    def nbytes(self) -> int:
        """Count the bytes of weights, slots and prefix cache; 0 once the engine is closed. Any thread may ask."""
        with self.scheduler.lock:
            if self.scheduler.is_closed:
                return 0
            return self.backend.weight_nbytes + self.backend.nbytes + self.scheduler.prefix_cache.nbytes

    def close(self) -> None:
        """Free weights and slots. Unfinished requests fail, and later ones are refused; a second call does nothing.

        Raises:
            UserError: called from within a step.
        """
        with self.scheduler.lock:
            if self.scheduler.close():
                self.grammars = None
                self.backend.close()

    # Checks.

    def _to_ids(self, prompt: str | Sequence[int]) -> Sequence[int]:
        """Tokenize a prompt that is a text."""
        return self.encode(prompt) if isinstance(prompt, str) else prompt

    def _make_request(
        self,
        prompt_ids: Sequence[int],
        options: dict[str, Any],
        sampling: SamplingOptions | None = None,
        with_text: bool = True,
        reader: PromptReader | None = None,
    ) -> Request:
        """Check a prompt and its options, and make a request of them."""
        checked = SamplingOptions.from_names(options, sampling)
        if checked.seed is None:  # a recovered request must sample the same tokens again
            checked.seed = secrets.randbits(64)
        if reader is not None:
            reader.check(self.backend, self.name)
            checked.max_new_tokens = 0
        elif checked.prompt_logprobs is not None:
            reader = Scorer(checked.prompt_logprobs)
        ids = self._check_prompt(prompt_ids, checked.max_new_tokens > 0)
        make_detokenizer = None
        if with_text or checked.stop:  # stop texts are found in the text
            tokenizer = self._need_tokenizer("text" if with_text else "stop texts")
            make_detokenizer = partial(Detokenizer, tokenizer, checked.stop)
        return Request(
            prompt_ids=ids,
            options=checked,
            end_ids=() if checked.ignore_eos else self.end_ids,
            max_length=self.backend.max_length,
            make_sampler=partial(self._make_sampler, ids, checked),
            make_detokenizer=make_detokenizer,
            reader=reader,
        )

    def _check_prompt(self, prompt_ids: Sequence[int], needs_room: bool) -> list[int]:
        """Return the prompt as a list, or say why the model can't take it; `needs_room` for an answer after it."""
        ids = check_tokens("prompt", prompt_ids)
        size, limit = self.backend.vocab_size, self.backend.max_length
        if not ids:
            raise UserError("prompt is empty; give at least one token, such as the one that begins a text")
        outside = next((token_id for token_id in ids if not 0 <= token_id < size), None)
        if outside is not None:
            raise UserError(f"prompt holds token {outside}; {self.name} has 0 to {size - 1}: another tokenizer's?")
        if limit is not None and len(ids) + needs_room > limit:
            raise PromptTooLongError(
                f"the prompt has {len(ids)} tokens; {self.name} takes {limit}{' with the answer' if needs_room else ''}. "
                "Shorten the prompt, or "
                "export the model with a larger --max-length"
            )
        return ids

    def _make_sampler(self, prompt_ids: Sequence[int], options: SamplingOptions) -> Sampler:
        """Make a sampler in its initial state, with a grammar if one is given, or a JSON schema."""
        matcher = None
        if options.json_schema is not None or options.grammar is not None:
            tokenizer = self._need_tokenizer("grammars and JSON schemas")
            self.grammars = self.grammars or Grammars(tokenizer, self.backend.vocab_size, self.end_ids)
            matcher = self.grammars.match(options)
        return Sampler(options, prompt_ids, self.backend.vocab_size, matcher)
