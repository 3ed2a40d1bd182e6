"""Perplexity and bits per byte of texts and of answers, by position, beside other attentions with the same weights."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from ..inference import Engine, OnnxEngine
from ..models import DogeForCausalLM
from ..processor.measuring import count_run_bytes, measure_tokens
from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message
from .attention_kinds import ATTENTIONS, use_attention
from .scored_documents import Document, Window, cut_windows, join_documents
from .scoring import ScoredText, score_texts


NO_MAXIMUM = 1 << 40
DEFAULT_CONTEXT = 2048  # where a model does not say on which length it was trained
FIRST_BUCKET = 16  # positions below it stand in one bucket
BATCH_TOKENS = 8192
SORTED_TOGETHER = 256  # windows that are brought into the order of their lengths, for little padding
LOGITS_AT_ONCE = 1024  # tokens; each has V logits


@dataclass(frozen=True)
class Reading:
    """How texts are read.

    Attributes:
        context: tokens that the model reads at once, at most.
        stride: tokens that each further window of a long document adds.
        joined: whether documents follow each other in one text.
        attentions: names of `ATTENTIONS`.
    """

    context: int
    stride: int
    joined: bool
    attentions: tuple[str, ...]


def plan_reading(
    engine: Engine,
    context: int | None = None,
    stride: int | None = None,
    joined: bool = False,
    attentions: Sequence[str] | None = None,
) -> Reading:
    """Fill in what is not set, and refuse what the model can't do.

    Args:
        engine: of the model.
        context: the length that the model was trained on if not set.
        stride: as long as the context if not set: windows share nothing.
        joined: whether documents follow each other in one text.
        attentions: if not set, all for a checkpoint whose window is shorter than the context, else its own alone.

    Raises:
        UserError: a number out of range, an unknown attention, or one that an export does not have.
    """
    if engine.tokenizer is None:
        raise UserError(f"{engine.name} has no tokenizer, which texts need; save one beside the model")
    limit = engine.backend.max_length
    if context is None:
        context = min(engine.trained_length or DEFAULT_CONTEXT, limit or NO_MAXIMUM)
    if context < 1:
        raise UserError(f"context={context} must be at least 1")
    if limit is not None and context > limit:
        raise UserError(f"context={context}: {engine.name} takes {limit} tokens; export it with a larger --max-length")
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise UserError(f"stride={stride} must lie between 1 and context={context}")
    is_export = isinstance(engine, OnnxEngine)
    for name in attentions or ():
        if name not in ATTENTIONS:
            raise UserError(unknown_name_message("attention", name, ATTENTIONS))
        if is_export and name != "dynamic":
            raise UserError(f"attention={name}: an export has dynamic mask attention alone; name its checkpoint")
    if attentions is None:
        alike = context <= engine.backend.keep_window_size
        attentions = ("dynamic",) if is_export or alike else tuple(ATTENTIONS)
    return Reading(context, stride, joined, tuple(attentions))


def make_edges(context: int) -> list[int]:
    """Return the first position of each bucket: 1, then powers of two up to the context."""
    edges = [1]
    while (following := max(FIRST_BUCKET, 2 * edges[-1])) <= context:
        edges.append(following)
    return edges


class Sums:
    """Sums of negative log-likelihoods, tokens and bytes, by window and by position.

    Attributes:
        by_window: [windows, 3] float64: nats, tokens, bytes.
        by_position: [buckets, 3].
    """

    def __init__(self, num_windows: int, context: int, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.sizes = tokenizer, measure_tokens(tokenizer)
        self.edges = make_edges(context)
        self.by_window = np.zeros((num_windows, 3))
        self.by_position = np.zeros((len(self.edges), 3))

    def add(self, number: int, window: Window, nats: np.ndarray) -> None:
        """Add the nats [n] of a window's predicted tokens; those that are not to be counted are left out."""
        targets, scored = window.ids[1:], window.scored
        positions = np.flatnonzero(scored) + 1
        buckets = np.searchsorted(self.edges, positions, side="right") - 1
        columns = [nats[scored], np.ones(len(positions))]
        if self.sizes is not None:
            columns.append(self.sizes[targets[scored]])
        for column, values in enumerate(columns):
            self.by_window[number, column] = values.sum()
            self.by_position[:, column] += np.bincount(buckets, values, minlength=len(self.edges))
        if self.sizes is None:
            self.by_window[number, 2] = count_run_bytes(targets, scored, self.tokenizer)
            self.by_position[:, 2] = math.nan

    def summarize(self) -> dict[str, Any]:
        """Return perplexity and bits per byte of all, with the standard error over windows, and of each bucket."""
        rate, stderr = estimate_bits(self.by_window)
        last = [edge - 1 for edge in self.edges[1:]]
        rows = zip(self.edges, [*last, None], self.by_position.tolist(), strict=True)
        return {
            **_describe(*self.by_window.sum(axis=0).tolist()),
            "bits_per_byte": rate,
            "stderr_bits_per_byte": stderr,
            "positions": [{"from": a, "to": b, **_describe(*sums)} for a, b, sums in rows if sums[1]],
        }


def _describe(nats: float, tokens: float, size: float) -> dict[str, Any]:
    """Describe sums of nats, tokens and bytes."""
    known = not math.isnan(size) and size > 0
    return {
        "tokens": int(tokens),
        "bytes": int(size) if known else None,
        "nats_per_token": nats / tokens,
        "perplexity": math.exp(min(nats / tokens, 700)),
        "bits_per_byte": nats / math.log(2) / size if known else None,
    }


def estimate_bits(by_window: np.ndarray) -> tuple[float | None, float | None]:
    """Estimate bits per byte, and its standard error as that of a ratio, from nats, tokens and bytes of windows."""
    nats, _, size = by_window.T
    if not size.sum() > 0:
        return None, None
    bits = nats / math.log(2)
    rate, count = bits.sum() / size.sum(), len(bits)
    if count < 2:
        return float(rate), None
    spread = ((bits - rate * size) ** 2).sum() * count / (count - 1)
    return float(rate), float(math.sqrt(spread) / size.sum())


def measure_perplexity(
    engine: Engine,
    documents: Sequence[Document],
    reading: Reading,
    report: Callable[[int], None] = lambda tokens: None,
) -> dict[str, Any]:
    """Measure how well a model predicts the scored tokens of documents.

    Each token is scored once. A window of a long document begins with the tokenizer's begin token, which is not scored.

    Args:
        engine: of the model; nobody else uses it meanwhile.
        documents: at least one.
        reading: from `plan_reading`.
        report: told how many tokens more were scored.

    Returns:
        A row for each attention, in `attentions`; a row for each file, of the first attention, in `sources`.

    Raises:
        UserError: nothing is to be scored, or the model's probabilities are no numbers.
    """
    tokenizer: Any = engine.tokenizer
    texts = [join_documents(documents)] if reading.joined else documents
    windows = [
        window
        for number, document in enumerate(texts)
        for window in cut_windows(document, number, reading.context, reading.stride, tokenizer.bos_token_id)
        if window.scored.any()
    ]
    if not windows:
        raise UserError("the files have no token to score")
    rows, first = {}, None
    for name in reading.attentions:
        sums = Sums(len(windows), reading.context, tokenizer)
        for number, nats in score_windows(engine, windows, name):
            sums.add(number, windows[number], nats)
            report(int(windows[number].scored.sum()))
        rows[name] = sums.summarize()
        first = first or sums
        rows[name] |= _compare(sums.by_window, first.by_window) if sums is not first else {}
    owners = [texts[window.document].source for window in windows]
    return {
        "documents": len(documents),
        "windows": len(windows),
        "attentions": rows,
        "sources": {} if reading.joined else _sum_by_source(owners, first.by_window),
    }


def _compare(by_window: np.ndarray, first: np.ndarray) -> dict[str, Any]:
    """Return by how many bits per byte an attention differs from the first, on the same windows."""
    difference = np.stack([by_window[:, 0] - first[:, 0], first[:, 1], first[:, 2]], axis=1)
    rate, stderr = estimate_bits(difference)
    return {"difference_bits_per_byte": rate, "stderr_difference_bits_per_byte": stderr}


def _sum_by_source(owners: Sequence[str], by_window: np.ndarray) -> dict[str, Any]:
    """Describe each file."""
    names = list(dict.fromkeys(owners))
    places = np.array([names.index(owner) for owner in owners])
    return {name: _describe(*by_window[places == place].sum(axis=0).tolist()) for place, name in enumerate(names)}


def score_windows(engine: Engine, windows: Sequence[Window], attention: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each window, in any order, and the nats [n] of its predicted tokens.

    Raises:
        UserError: they are no numbers.
    """
    if isinstance(engine, OnnxEngine):
        for start in range(0, len(windows), SORTED_TOGETHER):
            part = windows[start : start + SORTED_TOGETHER]
            texts = [ScoredText(tuple(w.ids[:1].tolist()), tuple(w.ids[1:].tolist())) for w in part]
            for number, likelihood in enumerate(score_texts(engine, texts), start):
                yield number, -likelihood.logprobs
        return
    model: DogeForCausalLM = engine.backend.model  # type: ignore[attr-defined]
    with use_attention(model, attention):
        for group in group_windows(windows, model.config.max_position_embeddings):
            yield from zip(group, compute_nats(model, [windows[number].ids for number in group]), strict=True)


def group_windows(windows: Sequence[Window], trained_length: int) -> Iterator[list[int]]:
    """Group windows that are computed together, those of similar length, by their numbers.

    A window beyond the trained length stands alone: a dynamic RoPE turns by the longest text of a batch.
    """
    for start in range(0, len(windows), SORTED_TOGETHER):
        part = range(start, min(start + SORTED_TOGETHER, len(windows)))
        group: list[int] = []
        for number in sorted(part, key=lambda number: len(windows[number].ids)):
            length = len(windows[number].ids) - 1
            if group and (length > trained_length or (len(group) + 1) * length > BATCH_TOKENS):
                yield group
                group = []
            group.append(number)
        yield group


@torch.no_grad()
def compute_nats(model: DogeForCausalLM, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Compute the negative log-likelihood of each token of rows of tokens but the first, given all before it.

    Rows are padded on the right, where no query that counts can see it.

    Raises:
        UserError: they are no numbers.
    """
    lengths = [len(row) - 1 for row in rows]
    ids = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : lengths[number]] = torch.from_numpy(row[:-1].astype(np.int64))
    model.model.rotary_emb.reset()
    hidden = model.model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
    found = []
    for number, row in enumerate(rows):
        targets = torch.from_numpy(row[1:].astype(np.int64)).to(model.device)
        parts = [
            F.cross_entropy(model.lm_head(states).float(), targets[start : start + LOGITS_AT_ONCE], reduction="none")
            for start, states in _iterate_chunks(hidden[number, : lengths[number]])
        ]
        nats = torch.cat(parts).double().cpu().numpy()
        if not np.isfinite(nats).all():
            raise UserError("the model computed probabilities that are no numbers: its weights are damaged")
        found.append(nats)
    return found


def _iterate_chunks(states: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    for start in range(0, len(states), LOGITS_AT_ONCE):
        yield start, states[start : start + LOGITS_AT_ONCE]
