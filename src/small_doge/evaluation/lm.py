"""Our engines as a model of lm-evaluation-harness: what its tasks ask for, computed by ONNX Runtime or PyTorch."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from ..inference import Engine, Request
from ..utils.errors import UserError
from .generating import choose_batch_size, run_together
from .scoring import ScoredText, score_texts


MAX_NEW_TOKENS = 256
# In the place of a score that there can't be: log-likelihoods of texts that are cut can't be compared with whole ones.
NO_SCORE = (-math.inf, False)


@dataclass
class Notes:
    """What the model could not be asked as the tasks meant it.

    Attributes:
        num_requests: texts scored and generated.
        num_cut: of these, longer than the model takes; tokens were cut off on the left.
        num_cut_tokens: tokens that were cut off.
        num_unscorable: of these, not scored, because what is to be scored is longer than the model takes by itself.
        num_split_words: texts whose boundary fell inside a token of the whole; both sides were tokenized by themselves.
        num_unended: generated answers that did not end by themselves, nor by a stop text, within their length.
    """

    num_requests: int = 0
    num_cut: int = 0
    num_cut_tokens: int = 0
    num_unscorable: int = 0
    num_split_words: int = 0
    num_unended: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the numbers by name."""
        return asdict(self)


def share_length(max_length: int, prompt_length: int, wanted: int) -> tuple[int, int]:
    """Share the length of a model between a prompt and its answer, which may take half of it from the prompt, and no more.

    Returns:
        Tokens of the prompt that are kept at most, and tokens of the answer.
    """
    room = max_length - min(wanted, max_length // 2)
    return room, min(wanted, max_length - min(prompt_length, room))


class EngineLM(TemplateLM):
    """Answers the harness's requests with an `OnnxEngine` or a `TorchEngine`, which nobody else uses meanwhile.

    Every text begins with the tokenizer's begin token, once: a context that is too long loses what follows that token.
    In a chat only the template writes control tokens, whatever a message spells out.

    Args:
        engine: with a tokenizer.
        max_length: tokens of the longest text; the length that the model was trained on if not set.
        batch_size: texts that are computed together. If not set, a short measurement finds how many are generated, and as
            many are scored as the engine has slots. An int4 export then generates one at a time, since its answers depend
            on what is computed beside them.
        show_progress: show a bar with the time left for each kind of request, unless `report` is set.

    Attributes:
        report: told which share of the requests is done whenever one is; None if nobody wants to know.
        notes: counts of what could not be asked as it was meant.
        is_int4: whether answers depend on what is computed beside them, so that another batch size is another result.
        ends_turn: whether an answer to a conversation is scored with the tokens by which the template ends its turn.
        used_batch_size: texts that were computed together last.
        has_ended: of the answers that were generated last, in the order of their requests, whether each ended by itself or
            by a stop text.
    """

    def __init__(
        self,
        engine: Engine,
        max_length: int | None = None,
        batch_size: int | None = None,
        show_progress: bool = False,
    ) -> None:
        super().__init__()
        if engine.tokenizer is None:
            raise UserError(f"{engine.name} has no tokenizer, which tasks need; save one beside the model")
        self.engine = engine
        self.tokenizer: Any = engine.tokenizer
        if len(self.tokenizer) > engine.backend.vocab_size:
            raise UserError(
                f"the tokenizer has {len(self.tokenizer):,} tokens, and {engine.name} has {engine.backend.vocab_size:,}: it is "
                "another model's; put the model's own beside it"
            )
        limits = [limit for limit in (engine.backend.max_length, max_length or engine.trained_length) if limit]
        self.max_length = min(limits) if limits else 2048
        self.batch_size = batch_size
        self.is_int4 = getattr(engine, "settings", {}).get("quantize") == "int4"
        self.found_batch_size: int | None = 1 if self.is_int4 else None
        self.used_batch_size: int | None = None
        self.show_progress = show_progress
        self.report: Callable[[float], None] | None = None
        self.notes = Notes()
        self.ends_turn = False
        self.has_ended: list[bool] = []
        # Conversations and their tokens, by the text that the template made of them.
        self.rendered: dict[str, tuple[list[dict[str, str]], list[int]]] = {}

    @property
    def eot_token_id(self) -> int:
        """Return the token that ends a text."""
        token = self.tokenizer.eos_token_id
        return self.engine.end_ids[0] if token is None else token

    @property
    def prefix_token_id(self) -> int:
        """Return the token that a text without a context is scored after."""
        token = self.tokenizer.bos_token_id
        return self.eot_token_id if token is None else token

    @property
    def tokenizer_name(self) -> str:
        """Return a name for the tokenizer and its chat template."""
        return self.engine.name.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokenize a text, with the begin token before it unless `add_special_tokens` is False."""
        if string in self.rendered:
            return self.rendered[string][1]
        return self.engine.encode(string, add_special_tokens is not False)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation as the model's chat template writes it, up to where the model goes on.

        Raises:
            UserError: the model has no chat template.
        """
        how: dict[str, Any] = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        text = self.engine.render_text(chat_history, **how)
        self.rendered[text] = chat_history, self.engine.render(chat_history, **how)
        return text

    # Scoring.

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokenize a context and what follows it.

        Where the boundary falls inside a token of the whole text, each side is tokenized by itself, so that the
        continuation is scored as a whole and nothing twice.
        """
        if context in self.rendered:
            messages, begin = self.rendered[context]
            if not self.ends_turn:
                return begin, self.tok_encode(continuation, add_special_tokens=False)
            answer = {"role": "assistant", "content": continuation}
            return begin, self.engine.render([*messages, answer], add_generation_prompt=False)[len(begin) :]
        bare = context.rstrip()
        if bare:
            context, continuation = bare, context[len(bare) :] + continuation
        whole, begin = self.tok_encode(context + continuation), self.tok_encode(context)
        if whole[: len(begin)] == begin and (len(whole) > len(begin) or not continuation):
            return begin, whole[len(begin) :]
        self.notes.num_split_words += 1
        return begin, self.tok_encode(continuation, add_special_tokens=False)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return how likely each continuation is after its context, and whether greedy decoding would write it.

        A continuation that is longer than the model takes has `NO_SCORE`, and is counted in `notes`.
        """
        pairs = []
        for context, continuation in (request.args for request in requests):
            if context:
                pairs.append(((context, continuation), *self._encode_pair(context, continuation)))
            else:
                tokens = self.tok_encode(continuation, add_special_tokens=False)
                pairs.append(((context, continuation), [self.prefix_token_id], tokens))
        return self._loglikelihood_tokens(pairs, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Score tokens after tokens."""
        fits = [len(continuation) <= self.max_length for _, _, continuation in requests]
        texts = [self._fit(*request[1:]) for request, fit in zip(requests, fits, strict=True) if fit]
        self.notes.num_requests += len(requests)
        self.notes.num_unscorable += len(requests) - len(texts)
        self.used_batch_size = self.batch_size or self.engine.backend.num_slots
        with self._progress("scoring", len(texts), disable_tqdm) as count:
            found = score_texts(self.engine, texts, lambda _: count(), self.batch_size)
        scores = iter([(likelihood.total, likelihood.is_greedy) for likelihood in found])
        return [next(scores) if fit else NO_SCORE for fit in fits]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return how likely each text is as a whole, in windows of the model's length where it is longer."""
        texts, owners = [], []
        for number, (string,) in enumerate(request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(string, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, windows):
                texts.append(ScoredText(tuple(context), tuple(continuation)))
                owners.append(number)
        self.notes.num_requests += len(requests)
        totals = [0.0] * len(requests)
        with self._progress("scoring", len(texts), disable_tqdm) as count:
            found = score_texts(self.engine, texts, lambda _: count(), self.batch_size)
        for number, likelihood in zip(owners, found, strict=True):
            totals[number] += likelihood.total
        return totals

    def _fit(self, context: list[int], continuation: list[int]) -> ScoredText:
        """Cut a context on the left, after its begin token, so that the model takes it with what follows."""
        room = self.max_length + 1 - len(continuation)  # the last token is scored, and not computed
        return ScoredText(tuple(self._cut(context, room)), tuple(continuation))

    def _cut(self, context: list[int], room: int) -> list[int]:
        """Return a context of at most `room` tokens; what is cut off is counted."""
        extra = len(context) - room
        if extra <= 0:
            return context
        self.notes.num_cut += 1
        self.notes.num_cut_tokens += extra
        begin = context[:1] if context[0] == self.tokenizer.bos_token_id and room > 1 else []
        return begin + context[len(context) - room + len(begin) :]

    # Generating.

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the text that follows each context, up to the first of its stop texts, which is left out."""
        made = [self._prepare(*request.args, seed=seed) for seed, request in enumerate(requests)]
        self.notes.num_requests += len(made)
        if self.batch_size is None and self.found_batch_size is None and len(made) > 1:
            self.found_batch_size = choose_batch_size(self.engine)
        self.used_batch_size = size = self.batch_size or self.found_batch_size or 1
        with self._progress("generating", len(made), disable_tqdm) as count:
            for _ in run_together(self.engine, made, size):
                count()
        self.has_ended = [request.finish_reason == "stop" for request in made]
        self.notes.num_unended += self.has_ended.count(False)
        return ["".join(token.text for token in request.output) for request in made]

    def _prepare(self, context: str, arguments: dict[str, Any], seed: int = 0) -> Request:
        """Make the request of a context and of the harness's arguments for generation; `seed` is that of drawn answers.

        Raises:
            UserError: an argument that is not known here.
        """
        given = dict(arguments)
        stop = given.pop("until", None) or []
        wanted = next(
            (given.pop(name) for name in ("max_gen_toks", "max_new_tokens") if name in given), MAX_NEW_TOKENS
        )
        flag, temperature = given.pop("do_sample", None), given.pop("temperature", None)
        is_sampled = (temperature or 0) > 0 if flag is None else flag
        if temperature is None:
            temperature = 1.0
        if not is_sampled:
            temperature = 0.0
            given = {name: value for name, value in given.items() if name not in ("top_p", "top_k", "min_p")}
        tokens = self.tok_encode(context) or [self.prefix_token_id]
        room, max_new_tokens = share_length(self.max_length, len(tokens), wanted)
        prompt = self._cut(tokens, room)
        stops = [text for text in ([stop] if isinstance(stop, str) else stop) if text]
        return self.engine.prepare(
            prompt, max_new_tokens=max_new_tokens, temperature=temperature, stop=stops, **{"seed": seed, **given}
        )

    @contextmanager
    def _progress(self, what: str, total: int, disable: bool) -> Iterator[Callable[[], None]]:
        """Give a function that counts a text as done, for `report` or for a bar with the time left."""
        with tqdm(total=total, desc=what, disable=disable or not self.show_progress or self.report is not None) as bar:

            def count() -> None:
                bar.update()
                if self.report is not None:
                    self.report(1 / total)

            yield count
