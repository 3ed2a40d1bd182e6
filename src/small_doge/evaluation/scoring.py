"""Log-likelihoods of texts after contexts, with every beginning that several of them share computed once.

Few-shot items share their examples, and the choices of an item share its question. Requests are therefore walked in the
order of their tokens, as in a tree, and the state at each fork is copied and gone on from. Texts that share little are
computed from their beginnings, several in a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np

from ..inference import Engine
from ..utils.errors import UserError


LEAST_SHARED = 8  # tokens; computing fewer again costs less than copying a state
SCORED_AT_ONCE = 64  # tokens; each has V logits
MOST_LOGITS = 1 << 25  # of a batch


class Likelihood(NamedTuple):
    """How likely a text is after a context.

    Attributes:
        logprobs: of its tokens, each given all before it; natural logarithms.
        is_greedy: whether each token is the likeliest in its place.
    """

    logprobs: np.ndarray
    is_greedy: bool

    @property
    def total(self) -> float:
        """Sum the log-probabilities."""
        return float(self.logprobs.sum())


@dataclass(frozen=True)
class ScoredText:
    """Tokens to score, after tokens that are given.

    Attributes:
        context: at least one token.
        continuation: the tokens whose log-probabilities are wanted.
    """

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def shared(self) -> tuple[int, ...]:
        """Return the tokens whose logits nobody asks for, which other texts may share."""
        return self.context[:-1]

    @property
    def scored(self) -> tuple[int, ...]:
        """Return the tokens after each of which a log-probability is read."""
        return (self.context[-1], *self.continuation[:-1])

    @property
    def num_computed(self) -> int:
        """Count the tokens that the model has to see."""
        return len(self.context) - 1 + len(self.continuation)


def score_texts(
    engine: Engine,
    texts: Sequence[ScoredText],
    report: Callable[[int], None] | None = None,
    batch_size: int | None = None,
) -> list[Likelihood]:
    """Find the log-probabilities of texts after their contexts.

    The engine must be idle; its prefix cache is left as it is.

    Args:
        engine: computes the model.
        texts: in any order, which does not change the results.
        report: told after each text how many are done.
        batch_size: texts that are computed together where they share little; as many as the engine has slots if not set.

    Raises:
        UserError: the engine is at work, or a token is none of the model's.
    """
    _check_tokens(engine, texts)
    results: dict[int, Likelihood] = {}
    backend = engine.backend
    with engine.scheduler.lock:
        if engine.scheduler.running or engine.scheduler.prefilling or engine.scheduler.waiting:
            raise UserError(f"{engine.name} has requests of its own; score texts before or after them")
        limit = backend.shareable_length
        places = range(len(texts))
        alone = [place for place in places if limit is not None and texts[place].num_computed > limit]
        sharing, apart = _split(backend, texts, sorted(set(places).difference(alone)))
        try:
            for place, likelihood in chain(
                _walk(backend, texts, sharing),
                _compute_batches(backend, texts, apart, batch_size or backend.num_slots),
                *(_walk(backend, texts, [place]) for place in alone),
            ):
                results[place] = likelihood
                if report is not None:
                    report(len(results))
        finally:
            backend.clear(0)
    return [results[place] for place in range(len(texts))]


def _check_tokens(engine: Engine, texts: Sequence[ScoredText]) -> None:
    """Refuse tokens that the model does not have, and contexts without any.

    Raises:
        UserError: there is one.
    """
    size = engine.backend.vocab_size
    for text in texts:
        if not text.context:
            raise UserError("a text is scored after at least one token, such as the one that begins a text")
        outside = next((token for token in text.context + text.continuation if not 0 <= token < size), None)
        if outside is not None:
            raise UserError(
                f"a text holds token {outside}, and {engine.name} has 0 to {size - 1}: the tokenizer is another model's"
            )


def _split(backend: Any, texts: Sequence[ScoredText], places: Sequence[int]) -> tuple[list[int], list[int]]:
    """Split texts at some places into those that share their beginnings, sorted by their tokens, and those that share little.

    What a text shares is worth keeping if computing it again costs more than the calls that a walk makes.
    """
    order = sorted(places, key=lambda place: texts[place].shared)
    shared = [0, *(_count_shared(texts[a].shared, texts[b].shared) for a, b in pairwise(order)), 0]
    sharing, apart = list[int](), list[int]()
    for number, place in enumerate(order):
        is_short = texts[place].num_computed <= backend.chunk_size
        is_apart = is_short and max(shared[number : number + 2]) < backend.tokens_per_call
        (apart if is_apart else sharing).append(place)
    return sharing, apart


def _compute_batches(
    backend: Any, texts: Sequence[ScoredText], places: Sequence[int], batch_size: int
) -> Iterator[tuple[int, Likelihood]]:
    """Score texts from their beginnings, several at once; yield the place of each, and what was found."""
    waiting = sorted(places, key=lambda place: (len(texts[place].shared), len(texts[place].scored)))
    while waiting:
        first, count = len(texts[waiting[0]].shared), 1
        end = first + len(texts[waiting[0]].scored)
        # Logits are computed of all places between the first and the last that any of the texts asks for.
        for place in waiting[1:batch_size]:
            longest = max(end, len(texts[place].shared) + len(texts[place].scored))
            if (count + 1) * (longest - first) * backend.vocab_size > MOST_LOGITS:
                break
            count, end = count + 1, longest
        batch, waiting = waiting[:count], waiting[count:]
        ids = np.zeros((count, end), dtype=np.int64)
        for row, place in zip(ids, batch, strict=True):
            whole = (*texts[place].shared, *texts[place].scored)
            row[: len(whole)] = whole
        logits = backend.compute_texts(ids, np.arange(first, end))
        for rows, place in zip(logits, batch, strict=True):
            start, number = len(texts[place].shared) - first, len(texts[place].continuation)
            yield place, _make_likelihood(rows[start : start + number], texts[place].continuation)


def _walk(backend: Any, texts: Sequence[ScoredText], order: Sequence[int]) -> Iterator[tuple[int, Likelihood]]:
    """Score texts in the order of their tokens; yield the place of each, and what was found."""
    forks = _find_forks([texts[place].shared for place in order])
    states: list[tuple[int, Any]] = []  # number of tokens and copied state of the forks above, the longest last
    for number, place in enumerate(order):
        text = texts[place]
        common = _count_shared(texts[order[number - 1]].shared, text.shared) if number else 0
        while states and states[-1][0] > common:
            states.pop()
        start = 0
        if states:
            start, state = states[-1]
            backend.load(0, state, start)
        else:
            backend.clear(0)
        for fork in forks[number]:
            if fork > start:
                _prefill(backend, text.shared[start:fork])
                states.append((fork, backend.save(0)))
                start = fork
        yield place, _score(backend, text, start)


def _find_forks(sequences: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Find, for each of the sorted sequences, at which numbers of tokens later ones part from it; rising."""
    shared = [_count_shared(a, b) for a, b in pairwise(sequences)] + [0]
    forks: list[list[int]] = [[] for _ in sequences]
    for number in reversed(range(len(sequences))):
        # Those who part later than the next one does share with this one what the next one shares with it.
        found = {shared[number]} | {
            fork for fork in (forks[number + 1] if shared[number] else []) if fork < shared[number]
        }
        rising: list[int] = []
        for fork in sorted(found):
            if fork - (rising[-1] if rising else 0) >= LEAST_SHARED:
                rising.append(fork)
        forks[number] = rising
    return forks


def _count_shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens at the beginning that two sequences share."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    low, high = 0, length  # the first `low` are equal, the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if first[:middle] == second[:middle] else (low, middle)
    return low


def _prefill(backend: Any, tokens: Sequence[int]) -> None:
    """Append tokens to the slot."""
    for start in range(0, len(tokens), backend.chunk_size):
        backend.prefill(0, np.array(tokens[start : start + backend.chunk_size]))


def _score(backend: Any, text: ScoredText, start: int) -> Likelihood:
    """Compute what follows the first `start` of the shared tokens, and read the log-probabilities of the continuation."""
    number, parts = len(text.continuation), list[Likelihood]()
    if not number:
        return Likelihood(np.zeros(0), True)
    size = min(SCORED_AT_ONCE, backend.chunk_size)
    # One call computes the end of the shared tokens and what is scored, if both fit.
    fits = len(text.shared) - start + number <= backend.chunk_size and number <= size
    if not fits:
        _prefill(backend, text.shared[start:])
        start = len(text.shared)
    before = text.shared[start:]
    for first in range(0, number, size):
        chunk = np.array((*before, *text.scored[first : first + size]))
        rows = backend.prefill(0, chunk, np.arange(len(before), len(chunk)))
        parts.append(_make_likelihood(rows, text.continuation[first : first + size]))
        before = ()
    return Likelihood(np.concatenate([part.logprobs for part in parts]), all(part.is_greedy for part in parts))


def _make_likelihood(rows: np.ndarray, tokens: Sequence[int]) -> Likelihood:
    """Read the log-probabilities of tokens by logits [n, V]."""
    if not tokens:
        return Likelihood(np.zeros(0), True)
    targets = np.array(tokens)
    return Likelihood(_read_logprobs(rows, targets), bool((rows.argmax(axis=-1) == targets).all()))


def _read_logprobs(rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the log-probabilities [n] of tokens [n] by logits [n, V].

    Raises:
        UserError: there are none, because the logits are not numbers.
    """
    exact = rows.astype(np.float64)
    exact -= exact.max(axis=-1, keepdims=True)
    found = exact[np.arange(len(targets)), targets] - np.log(np.exp(exact).sum(axis=-1))
    if not np.isfinite(found).all():
        raise UserError("the model computed probabilities that are no numbers: its weights are damaged")
    return found
