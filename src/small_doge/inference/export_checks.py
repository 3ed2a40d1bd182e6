"""The checks of an export: the graph against PyTorch, and the loss of quality on held-out texts."""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..models import DogeForCausalLM, DynamicMaskCache
from ..processor.chat_encoding import encode_chat, encode_prompt
from ..processor.corpus import iterate_documents, iterate_mixture
from ..utils.errors import UserError
from .choices import MAX_CACHE_INCREASE, MAX_PERPLEXITY_INCREASE
from .detokenizer import Tokenizer
from .onnx_backend import OnnxBackend


if TYPE_CHECKING:
    from .graph import DogeGraph

UNSEEN = 10_000_000  # number of the first held-out document of the embedded corpus: training stays far below
HELD_OUT_TEXTS, HELD_OUT_TOKENS, HELD_OUT_ROWS = 64, 128, 256
CHECK_PROMPTS, CHECK_TOKENS = 6, 32
PAST_WINDOW = 64
# Largest difference of a logit, relative to the logits' standard deviation, that rounding in float32 explains.
LOGIT_TOLERANCE = 2e-3


@dataclass
class Quality:
    """How an exported graph compares with its checkpoint.

    Attributes:
        perplexity: perplexity per token of the checkpoint in PyTorch, on held-out texts.
        exported_perplexity: the same of the exported graph.
        logit_difference: largest difference from the logits of PyTorch with the same (dequantized) weights, relative to
            the logits' standard deviation. Activations are not rounded for this.
        same_greedy: fraction of prompts after which both generate the same tokens greedily.
        agreement: fraction of tokens for which both find the same next token most likely.
        divergence: mean Kullback-Leibler divergence of the graph from the checkpoint, in nats per token.
    """

    perplexity: float
    exported_perplexity: float
    logit_difference: float
    same_greedy: float
    agreement: float
    divergence: float

    @property
    def perplexity_increase(self) -> float:
        """Compute the increase of the perplexity, relative to the checkpoint's; 0.02 is 2%."""
        return self.exported_perplexity / self.perplexity - 1


def make_references(model: DogeForCausalLM, graph: "DogeGraph") -> tuple[DogeForCausalLM, DogeForCausalLM]:
    """Copy the model with the graph's rotary frequencies, once with its own and once with the graph's rounded weights."""
    reference = model
    if model.model.rotary_emb.rope_type == "dynamic":
        reference = copy.deepcopy(model)
        rotary = reference.model.rotary_emb
        rotary.rope_type = "default"  # the frequencies stay as they are, whatever the length
        rotary.inv_freq.copy_(torch.from_numpy(graph.frequencies))
    if not graph.rounded:
        return reference, reference
    rounded = copy.deepcopy(reference)
    rounded.load_state_dict({key: torch.from_numpy(value) for key, value in graph.rounded.items()}, strict=False)
    return reference, rounded


def tokenize_held_out(
    texts: Iterable[str] | None, tokenizer: Tokenizer | None, vocab_size: int, limit: int | None
) -> list[list[int]]:
    """Tokenize held-out texts.

    Args:
        texts: the texts; None takes those of the embedded corpus.
        tokenizer: tokenizer of the model; None gives random token ids.
        vocab_size: V, the number of token ids.
        limit: largest number of tokens in a row; None for no limit.

    Returns:
        Rows of at least two token ids.

    Raises:
        UserError: there are no texts.
    """
    length = min(HELD_OUT_TOKENS, limit or HELD_OUT_TOKENS)
    if tokenizer is None:
        random = np.random.default_rng(0)
        return random.integers(0, vocab_size, (HELD_OUT_TEXTS, length)).tolist()
    encoded: list[list[int]] = []
    if texts is None:
        texts = iterate_mixture(HELD_OUT_TEXTS, start=UNSEEN)
        chats = iterate_documents("chat", UNSEEN + HELD_OUT_TEXTS, start=UNSEEN) if tokenizer.chat_template else ()
        encoded = [encode_chat(tokenizer, row["messages"]).ids for row in chats]
    rows: list[list[int]] = []
    for ids in chain(encoded, (encode_prompt(tokenizer, text) for text in texts)):
        rows += [ids[i : i + length] for i in range(0, len(ids), length)]
        if len(rows) >= HELD_OUT_ROWS:
            break
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise UserError("there are no texts to measure the loss of quality on")
    return rows


@torch.no_grad()
def check_quality(
    model: DogeForCausalLM,
    rounded: DogeForCausalLM,
    exact: OnnxBackend,
    backend: OnnxBackend,
    rows: list[list[int]],
    end_ids: Sequence[int],
) -> Quality:
    """Compare an exported graph with its checkpoint.

    Args:
        model: the checkpoint.
        rounded: the checkpoint with the graph's rounded weights.
        exact: the graph, without rounding of activations.
        backend: the graph as it is exported.
        rows: rows of held-out token ids.
        end_ids: token ids that end an output.
    """
    agreements, divergences, own, exported = [], [], [], []
    for row in rows:
        ids = torch.tensor([row])
        reference = model(ids).logits[0]
        logits = torch.from_numpy(_run_row(backend, row))
        agreements.append((reference.argmax(-1) == logits.argmax(-1)).float().mean().item() * len(row))
        log_p, log_q = reference.log_softmax(-1), logits.log_softmax(-1)
        divergences.append((log_p.exp() * (log_p - log_q)).sum().item())
        target = ids[0, 1:, None]
        own.append(-log_p[:-1].gather(1, target).sum().item())
        exported.append(-log_q[:-1].gather(1, target).sum().item())
    tokens = sum(map(len, rows))
    targets = tokens - len(rows)
    same = [_generates_alike(model, backend, row, end_ids) for row in rows[:CHECK_PROMPTS]]
    return Quality(
        perplexity=math.exp(sum(own) / targets),
        exported_perplexity=math.exp(sum(exported) / targets),
        logit_difference=_compare_logits(rounded, exact, _choose_parity_rows(rows, backend)),
        same_greedy=sum(same) / len(same),
        agreement=sum(agreements) / tokens,
        divergence=sum(divergences) / tokens,
    )


def _compare_logits(model: DogeForCausalLM, backend: OnnxBackend, rows: list[list[int]]) -> float:
    """Find the largest difference of a logit, relative to the standard deviation of its row's logits."""
    differences = []
    for row in rows:
        expected = model(torch.tensor([row])).logits[0]
        found = torch.from_numpy(_run_row(backend, row))
        differences.append(float((found - expected).abs().max() / expected.std()))
    return max(differences)


def _choose_parity_rows(rows: list[list[int]], backend: OnnxBackend) -> list[list[int]]:
    """Choose rows within the window, and join rows to one that goes past it."""
    window = backend.keep_window_size
    limit = min(backend.max_length or window + PAST_WINDOW, window + PAST_WINDOW)
    joined = list(islice(chain.from_iterable(cycle(rows)), limit))
    return [row[:window] for row in rows[: 2 * CHECK_PROMPTS]] + [joined]


def _run_row(backend: OnnxBackend, row: Sequence[int]) -> np.ndarray:
    """Compute the logits [T, V] of a row, in several chunks as in a conversation."""
    backend.clear(0)
    pieces = np.split(np.array(row), range(backend.chunk_size // 2 + 1, len(row), backend.chunk_size // 2 + 1))
    return np.concatenate([backend.prefill(0, piece, keep=np.arange(len(piece))) for piece in pieces])


def calibrate_cache(backend: OnnxBackend, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Find scales for a cache of 8 bits: the largest number of each channel that rows of token ids give becomes 127.

    The two channels of a key that the rotary embedding turns into each other share a scale, which no position changes.

    Args:
        backend: of the graph with a float32 cache.
        rows: rows of token ids.

    Returns:
        Scales [1, K, 1, d] of the keys and of the values of each layer in turn.
    """
    largest = np.zeros((2 * backend.num_layers, backend.num_kv_heads, backend.head_size), dtype=np.float32)
    for row in rows:
        _run_row(backend, row)
        cache = backend.cache[:, 0, :, : backend.num_keys[0]]
        halves = np.split(cache[0::2], 2, axis=-1)
        largest[0::2] = np.maximum(largest[0::2], np.tile(np.hypot(*halves).max(axis=2), 2))
        largest[1::2] = np.maximum(largest[1::2], np.abs(cache[1::2]).max(axis=2))
    scales = np.where(largest == 0, 1, largest) / np.float32(127)
    return list(scales[:, None, :, None].astype(np.float32))


def _generates_alike(model: DogeForCausalLM, backend: OnnxBackend, row: Sequence[int], end_ids: Sequence[int]) -> bool:
    """Tell whether both continue the first half of a row with the same tokens greedily; a tie counts as the same."""
    prompt = list(row[: max(1, min(len(row), backend.keep_window_size) // 2)])
    room = min(CHECK_TOKENS, backend.keep_window_size - len(prompt))
    if backend.max_length is not None:
        room = min(room, backend.max_length - len(prompt))
    cache = DynamicMaskCache(model.config)
    backend.clear(0)
    ids = np.array(prompt)
    for _ in range(room):
        wanted = model(torch.from_numpy(ids)[None], past_key_values=cache, use_cache=True, logits_to_keep=1).logits[
            0, -1
        ]
        token, own = int(backend.prefill(0, ids).argmax()), int(wanted.argmax())
        if token != own:
            return bool(wanted[own] - wanted[token] <= LOGIT_TOLERANCE * wanted.std())
        if token in end_ids:
            break
        ids = np.array([token])
    return True


def refuse_bad_quality(
    quality: Quality, quantize: str, max_perplexity_increase: float | None, kv_cache_dtype: str = "float32"
) -> None:
    """Check the quality of an export.

    Args:
        quality: how the graph compares with its checkpoint.
        quantize: name of the weight format.
        max_perplexity_increase: largest relative increase; if None, the format's `MAX_PERPLEXITY_INCREASE`, and
            `MAX_CACHE_INCREASE` more for a cache of 8 bits.
        kv_cache_dtype: type of the numbers in the cache.

    Raises:
        UserError: the graph differs from PyTorch, or the perplexity increases more than that.
    """
    is_rounded = quantize != "none" or kv_cache_dtype != "float32"
    limit = MAX_PERPLEXITY_INCREASE[quantize] + (MAX_CACHE_INCREASE if kv_cache_dtype == "int8" else 0.0)
    limit = limit if max_perplexity_increase is None else max_perplexity_increase
    if not quality.logit_difference <= LOGIT_TOLERANCE:
        raise UserError(
            f"the exported graph differs from PyTorch by {quality.logit_difference:.2g} of the logits' spread, more than "
            f"rounding explains ({LOGIT_TOLERANCE}); nothing was written. Please report it with the model's config.json"
        )
    if not is_rounded and quality.same_greedy < 1:
        raise UserError(
            f"the exported graph writes other text than PyTorch after {1 - quality.same_greedy:.0%} of the prompts; "
            "nothing was written. Please report it with the model's config.json"
        )
    if not quality.perplexity_increase <= limit:
        what = quantize if kv_cache_dtype == "float32" else f"{quantize} with a cache of {kv_cache_dtype}"
        raise UserError(
            f"{what} raises the perplexity by {quality.perplexity_increase:.2%}, from {quality.perplexity:.4g} to "
            f"{quality.exported_perplexity:.4g}; the limit is {limit:.2%}. Nothing was written. Use more bits, or allow it "
            f"with --max-perplexity-increase {quality.perplexity_increase * 1.1:.2g}"
        )
