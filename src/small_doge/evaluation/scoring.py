"""Log-likelihoods of texts after contexts, with every beginning that several of them share computed once.

Few-shot items share their examples, and the choices of an item share its question. Requests are therefore walked in the
order of their tokens, as in a tree, and the state at each fork is copied and gone on from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..inference import Engine
from ..utils.errors import UserError


LEAST_SHARED = 8  # tokens; computing fewer again costs less than copying a state
SCORED_AT_ONCE = 64  # tokens; each has V logits


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


def score_texts(
    engine: Engine, texts: Sequence[ScoredText], report: Callable[[int], None] | None = None
) -> list[Likelihood]:
    """Find the log-probabilities of texts after their contexts.

    The engine must be idle; its prefix cache is left as it is.

    Args:
        engine: computes the model.
        texts: in any order, which does not change the results.
        report: told after each text how many are done.

    Raises:
        UserError: the engine is at work, or a token is none of the model's.
    """
    _check_tokens(engine, texts)
    results: dict[int, Likelihood] = {}
    with engine.scheduler.lock:
        if engine.scheduler.running or engine.scheduler.prefilling or engine.scheduler.waiting:
            raise UserError(f"{engine.name} has requests of its own; score texts before or after them")
        try:
            for place, likelihood in _walk(engine.backend, texts):
                results[place] = likelihood
                if report is not None:
                    report(len(results))
        finally:
            engine.backend.clear(0)
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


def _walk(backend: Any, texts: Sequence[ScoredText]) -> Iterator[tuple[int, Likelihood]]:
    """Score texts in the order of their tokens; yield the place of each, and what was found."""
    order = sorted(range(len(texts)), key=lambda place: texts[place].shared)
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
        _prefill(backend, text.shared[start:])
        yield place, _score(backend, text)


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


def _score(backend: Any, text: ScoredText) -> Likelihood:
    """Compute what follows the shared tokens, and read the log-probabilities of the continuation."""
    if not text.continuation:
        return Likelihood(np.zeros(0), True)
    inputs, logprobs, is_greedy = text.scored, np.empty(len(text.continuation)), True
    size = min(SCORED_AT_ONCE, backend.chunk_size)
    for start in range(0, len(inputs), size):
        chunk = np.array(inputs[start : start + size])
        rows = backend.prefill(0, chunk, np.arange(len(chunk)))
        targets = np.array(text.continuation[start : start + size])
        logprobs[start : start + size] = _read_logprobs(rows, targets)
        is_greedy = is_greedy and bool((rows.argmax(axis=-1) == targets).all())
    return Likelihood(logprobs, is_greedy)


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
