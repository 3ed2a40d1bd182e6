"""Perplexity and bits per byte of texts and of answers, by position, beside other attentions with the same weights."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..inference import Engine, OnnxEngine
from ..models import DogeForCausalLM
from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message
from .attention_kinds import use_attention
from .choices import ATTENTIONS
from .perplexity_sums import Sums, describe_sums, estimate_bits
from .scored_documents import Document, Window, cut_windows, join_documents
from .scoring import ScoredText, score_texts


NO_MAXIMUM = 1 << 40
DEFAULT_CONTEXT = 2048  # where a model does not say on which length it was trained
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


def measure_perplexity(
    engine: Engine,
    documents: Sequence[Document],
    reading: Reading,
    report: Callable[[int], None] = lambda tokens: None,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Measure how well a model predicts the scored tokens of documents.

    Each token is scored once. A window of a long document begins with the tokenizer's begin token, which is not scored.

    Args:
        engine: of the model; nobody else uses it meanwhile.
        documents: at least one.
        reading: from `plan_reading`.
        report: told how many tokens more were scored.
        kept: beginning of the names of files that keep the sums of each attention until `discard_kept` is called: a run
            that was stopped goes on after the last whole one. It must tell the model and what is read.

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
        file = None if kept is None else kept.with_name(f"{kept.name}-{name}.npz")
        if file is not None and sums.load(file):
            report(int(sums.by_window[:, 1].sum()))
        else:
            for number, nats in score_windows(engine, windows, name):
                sums.add(number, windows[number], nats)
                report(int(windows[number].scored.sum()))
            if file is not None:
                sums.save(file)
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


def name_kept(folder: Path, model_hash: str, documents: Sequence[Document], reading: Reading) -> Path:
    """Return where sums of a model, documents and a way of reading are kept, for `measure_perplexity`."""
    digest = hashlib.sha256(f"{model_hash} {reading.context} {reading.stride} {reading.joined}".encode())
    for document in documents:
        digest.update(document.tokens.tobytes() + document.scored.tobytes())
    return folder / f".sums-{digest.hexdigest()[:16]}"


def discard_kept(kept: Path) -> None:
    """Delete what was kept, once the figures are written."""
    for file in kept.parent.glob(f"{kept.name}-*.npz"):
        file.unlink()


def _compare(by_window: np.ndarray, first: np.ndarray) -> dict[str, Any]:
    """Return by how many bits per byte an attention differs from the first, on the same windows."""
    difference = np.stack([by_window[:, 0] - first[:, 0], first[:, 1], first[:, 2]], axis=1)
    rate, stderr = estimate_bits(difference)
    return {"difference_bits_per_byte": rate, "stderr_difference_bits_per_byte": stderr}


def _sum_by_source(owners: Sequence[str], by_window: np.ndarray) -> dict[str, Any]:
    """Describe each file."""
    names = list(dict.fromkeys(owners))
    places = np.array([names.index(owner) for owner in owners])
    return {name: describe_sums(*by_window[places == place].sum(axis=0).tolist()) for place, name in enumerate(names)}


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
