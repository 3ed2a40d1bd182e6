"""The ONNX Runtime backend: an exported graph, and the keys, values and scores of its slots."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError
from .backend import KeptKeys, sort_keys
from .onnx_session import HIDDEN_STATES, LOGITS, OnnxSession
from .sampling_options import check_integer


# Keys per head beyond w. Evicted keys stay there, masked, until the slot is compacted.
SPARE_KEYS = 256
INITIAL_KEYS = 256
# Tokens that are computed in the time that a call takes beside them, about.
TOKENS_PER_CALL = 32


@dataclass
class SlotState:
    """A copy of a slot without evicted keys.

    Attributes:
        cache: keys and values [2 L, K, n, d].
        scores: [L K, n].
        length: tokens of the sequence.
    """

    cache: np.ndarray
    scores: np.ndarray
    length: int

    @property
    def nbytes(self) -> int:
        """Count the bytes of keys, values and scores."""
        return self.cache.nbytes + self.scores.nbytes


class OnnxBackend:
    """A session of ONNX Runtime, and the keys, values and scores of its slots.

    Keys lie in the order of the text. A slot holds at most w + `SPARE_KEYS` keys per head; when it is full, the evicted
    ones are removed. What a slot gives does not depend on what is computed beside it, to the last bit, unless weights
    have 4 bits.

    Shapes: L layers, K key-value heads, d head size, V token ids, w `keep_window_size`, T new tokens, S slots.

    Args:
        graph: file or bytes of the model.
        settings: `num_hidden_layers`, `num_key_value_heads`, `head_size`, `vocab_size`, `keep_window_size`,
            `max_length`, and `kv_cache_dtype`, float32 if it is not there.
        num_slots: sequences that are held at the same time.
        threads: processor threads of an operator; None chooses them by a quick measurement.

    Raises:
        UserError: ONNX Runtime is not installed, or a number is out of range.
    """

    def __init__(
        self, graph: str | Path | bytes, settings: dict[str, Any], num_slots: int = 8, threads: int | None = None
    ) -> None:
        self.graph = graph if isinstance(graph, bytes) else str(graph)
        self.num_layers: int = settings["num_hidden_layers"]
        self.num_kv_heads: int = settings["num_key_value_heads"]
        self.head_size: int = settings["head_size"]
        self.vocab_size: int = settings["vocab_size"]
        self.keep_window_size: int = settings["keep_window_size"]
        self.max_length: int | None = settings["max_length"]
        self.kv_cache_dtype = np.dtype(settings.get("kv_cache_dtype", "float32"))
        self.num_slots = check_integer("num_slots", num_slots, 1)
        threads = None if threads is None else check_integer("threads", threads, 1)
        self.chunk_size = SPARE_KEYS
        self.tokens_per_call = TOKENS_PER_CALL
        self.shareable_length: int | None = None  # no frequency of an exported RoPE changes with the length
        self.keep_first = np.zeros(1, dtype=np.int64)  # `logits_to_keep` of a single token
        self.num_keys = [0] * num_slots  # keys in each slot, evicted ones included
        self.lengths = [0] * num_slots  # tokens of each slot's sequence
        # Positions [L K, n] of the keys of each slot when it was last compacted; see `read_keys`.
        self.origins: list[np.ndarray | None] = [None] * num_slots
        # First slot, count and scores of the last call, while the runtime alone has them.
        self.latest: tuple[int, int, Any] | None = None
        self.key_capacity = min(INITIAL_KEYS, self._get_max_keys())
        self.cache, self.scores = self._make_cache(self.key_capacity, num_slots=1)
        self.threads, self.session = (threads, self._open(threads)) if threads else self._choose_threads()
        # The bytes of the graph, nearly all of which are weights; its file may be replaced later.
        self.weight_nbytes = len(graph) if isinstance(graph, bytes) else Path(graph).stat().st_size

    @property
    def max_nbytes(self) -> int:
        """Count the bytes of keys, values and scores that a slot can come to hold."""
        cache, scores = self._make_cache(self._get_max_keys(), num_slots=1)
        return cache.nbytes + scores.nbytes

    def _get_max_keys(self) -> int:
        """Return how many keys per head a slot can hold."""
        bound = self.keep_window_size + SPARE_KEYS
        return bound if self.max_length is None else min(bound, self.max_length)

    # Threads.

    def _open(self, threads: int) -> OnnxSession:
        """Open a session."""
        return OnnxSession(self.graph, self.num_layers, self.vocab_size, threads)

    def _choose_threads(self) -> tuple[int, OnnxSession]:
        """Halve the threads as long as that is faster: small models lose more by waiting than they gain by sharing."""
        import psutil

        threads = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
        best = (threads, self._open(threads))
        if threads == 1:
            return best
        best_time = self._time_decode(best[1])
        while threads > 1:
            threads = (threads + 1) // 2 if threads > 2 else 1
            session = self._open(threads)
            seconds = self._time_decode(session)
            if seconds > best_time:
                break
            best, best_time = (threads, session), seconds
        return best

    def _time_decode(self, session: OnnxSession) -> float:
        """Measure how many seconds the first token of a sequence takes, the best of twelve."""
        self.session, best = session, float("inf")
        for _ in range(12):
            self.clear(0)
            start = time.perf_counter()
            self.decode(1, np.zeros(1, dtype=np.int64))
            best = min(best, time.perf_counter() - start)
        self.clear(0)
        session.unbind()
        return best

    # Computation.

    def prefill(self, slot: int, ids: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
        """Append token ids [T], at most `chunk_size`, to a slot's sequence.

        Args:
            slot: the slot.
            ids: token ids.
            keep: indices [n] of the tokens whose logits are wanted; None for the last.

        Returns:
            Logits [V] after the last token, or [n, V].

        Raises:
            UserError: the sequence would be longer than `max_length`.
        """
        ids = np.asarray(ids, dtype=np.int64)[None]
        logits = self._run(slot, 1, ids, np.array([ids.shape[1] - 1]) if keep is None else keep)
        return (logits[0, -1] if keep is None else logits[0]).copy()

    def decode(self, count: int, ids: np.ndarray) -> np.ndarray:
        """Append one token id [count] to each of the first slots; return logits [count, V], valid until the next call."""
        return self._run(0, count, ids[:, None], self.keep_first)[:, 0]

    def compute_texts(self, ids: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Compute token ids [S, T] of several texts from their beginning; return logits [S, n, V] of the places named.

        The first S slots are empty afterwards.
        """
        for slot in range(len(ids)):
            self.clear(slot)
        try:
            return self._run(0, len(ids), ids, keep)
        finally:
            for slot in range(len(ids)):
                self.clear(slot)

    @property
    def hidden_size(self) -> int | None:
        """Return the size of a hidden state; None if the graph gives none, as those of older exports."""
        return self.session.widths.get(HIDDEN_STATES)

    def compute_hidden(self, slot: int, ids: np.ndarray) -> np.ndarray:
        """Append token ids [T] as `prefill` does; return the last hidden states [T, D], after the final norm.

        Raises:
            UserError: also if the graph was exported without hidden states.
        """
        if self.hidden_size is None:  # an export of an older version
            raise UserError("the exported graph has no hidden states, which embeddings need: export the model again")
        ids = np.asarray(ids, dtype=np.int64)[None]
        return self._run(slot, 1, ids, self.keep_first, HIDDEN_STATES)[0].copy()

    def _run(self, first: int, count: int, ids: np.ndarray, keep: np.ndarray, wanted: str = LOGITS) -> np.ndarray:
        """Compute token ids [S, T] for S = `count` slots.

        Returns:
            The logits [S, len(keep), V], or the hidden states [S, T, D] if these are `wanted`; valid until the next call.
        """
        # 1. Make room for the new keys.
        num_new = ids.shape[1]
        self._reserve(first, count, num_new)
        slots = slice(first, first + count)
        num_keys = max(self.num_keys[slots])  # -inf stands in place of the scores that shorter sequences lack
        if not self.session.has_num_keys:  # then keys of this score do
            self.num_keys[slots] = [num_keys] * count
        # 2. Bind caches and buffers, which stay bound as long as shapes stay the same, and fill the buffers.
        bound, buffers = self.session.bind(self.cache, first, count, num_new, len(keep), wanted)
        buffers.ids[:], buffers.keep[:], buffers.num_keys[:] = ids, keep, self.num_keys[slots]
        np.add(np.array(self.lengths[slots])[:, None], np.arange(num_new), out=buffers.positions)
        # 3. Hand over the scores; those of the last call are within the runtime already.
        if self.latest is not None and self.latest[:2] == (first, count):
            scores = self.latest[2]
        else:
            self._sync_scores()
            scores = self.session.take_in(self.scores[slots, :, :num_keys])
        # 4. Run, and take note of the new scores, keys and lengths.
        self.latest = (first, count, self.session.run(bound, scores))
        self.num_keys[slots] = [number + num_new for number in self.num_keys[slots]]
        self.lengths[slots] = [length + num_new for length in self.lengths[slots]]
        return buffers.output

    # Memory.

    def _make_cache(self, key_capacity: int, num_slots: int) -> tuple[np.ndarray, np.ndarray]:
        """Allocate keys and values [2 L, S, K, capacity, d], and scores [S, L K, capacity] of -inf."""
        shape = (2 * self.num_layers, num_slots, self.num_kv_heads, key_capacity, self.head_size)
        scores = np.full((num_slots, self.num_layers * self.num_kv_heads, key_capacity), -np.inf, dtype=np.float32)
        return np.zeros(shape, dtype=self.kv_cache_dtype), scores

    def _grow(self, key_capacity: int, num_slots: int) -> None:
        """Move the slots to larger arrays."""
        self._sync_scores()
        cache, scores = self._make_cache(key_capacity, num_slots)
        cache[:, : self.cache.shape[1], :, : self.key_capacity] = self.cache
        scores[: self.cache.shape[1], :, : self.key_capacity] = self.scores
        self.cache, self.scores, self.key_capacity = cache, scores, key_capacity
        self.session.unbind()

    def _reserve(self, first: int, count: int, num_new: int) -> None:
        """Make room for `num_new` more keys in the slots from `first` to `first + count - 1`."""
        for slot in range(first, first + count):  # each by its own length, so that what is beside it changes nothing
            living = min(self.lengths[slot], self.keep_window_size)
            if self.num_keys[slot] + num_new > min(self._get_max_keys(), living + num_new + SPARE_KEYS):
                self._compact(slot)
        needed = max(self.num_keys[first : first + count]) + num_new
        if needed > self._get_max_keys():
            raise UserError(f"{needed} tokens do not fit: the model takes {self.max_length}")
        capacity, num_slots = self.key_capacity, self.cache.shape[1]
        while capacity < needed:
            capacity = min(2 * capacity, self._get_max_keys())
        while num_slots < first + count:
            num_slots = min(2 * num_slots, self.num_slots)
        if capacity > self.key_capacity or num_slots > self.cache.shape[1]:
            self._grow(capacity, num_slots)

    def _compact(self, slot: int) -> None:
        """Remove evicted keys; the others keep their order."""
        num_keys, kept = self.num_keys[slot], min(self.lengths[slot], self.keep_window_size)
        if num_keys == kept:
            return
        self._sync_scores()
        scores = self.scores[slot, :, :num_keys]
        # A stable sort puts the living keys first, in their order.
        order = np.argsort(np.isneginf(scores), axis=-1, kind="stable")[:, :kept]
        self.origins[slot] = np.take_along_axis(self._find_positions(slot), order, axis=-1)
        self.scores[slot, :, :kept] = np.take_along_axis(scores, order, axis=-1)
        self.scores[slot, :, kept:] = -np.inf
        order = order.reshape(self.num_layers, self.num_kv_heads, kept)
        for (layer, head), moved in np.ndenumerate((order != np.arange(kept)).argmax(axis=-1)):
            for kind in (0, 1):
                rows = self.cache[2 * layer + kind, slot, head]
                rows[moved:kept] = rows[order[layer, head, moved:]]
        self.num_keys[slot] = kept

    def _sync_scores(self) -> None:
        """Copy the scores of the last call to `scores`."""
        if self.latest is not None:
            first, count, value = self.latest
            scores = value.numpy()
            self.scores[first : first + count, :, : scores.shape[2]] = scores
            self.latest = None

    # Slots.

    def read_keys(self, slot: int) -> list[list[KeptKeys]]:
        """Return what each key-value head of each layer keeps of a slot's sequence.

        An export of an older version gives other places to what was computed in a batch of several slots.
        """
        self._sync_scores()
        positions, scores = self._find_positions(slot), self.scores[slot, :, : self.num_keys[slot]]
        heads = [sort_keys(p[s > -np.inf], s[s > -np.inf]) for p, s in zip(positions, scores, strict=True)]
        size = self.num_kv_heads
        return [heads[start : start + size] for start in range(0, len(heads), size)]

    def _find_positions(self, slot: int) -> np.ndarray:
        """Return the positions [L K, n] of a slot's keys: those that it had when it was compacted, and all since."""
        rows, origins = self.num_layers * self.num_kv_heads, self.origins[slot]
        old = np.zeros((rows, 0), dtype=np.int64) if origins is None else origins
        new = np.arange(self.num_keys[slot] - old.shape[1]) + self.lengths[slot] - self.num_keys[slot] + old.shape[1]
        return np.concatenate([old, np.broadcast_to(new, (rows, len(new)))], axis=1)

    def clear(self, slot: int) -> None:
        """Remove a slot's sequence."""
        self._sync_scores()
        self.num_keys[slot] = self.lengths[slot] = 0
        self.origins[slot] = None
        if slot < self.cache.shape[1]:
            self.scores[slot] = -np.inf

    def move(self, source: int, target: int) -> None:
        """Move a sequence to another slot, replacing the one there."""
        num_keys = self.num_keys[source]
        if not num_keys:  # its prefill has not begun, and it may have no memory yet
            self.clear(target)
            return
        self._reserve(target, 1, 0)
        self._sync_scores()
        self.cache[:, target, :, :num_keys] = self.cache[:, source, :, :num_keys]
        self.scores[target] = self.scores[source]
        self.num_keys[target], self.lengths[target] = self.num_keys[source], self.lengths[source]
        self.origins[target] = self.origins[source]
        self.clear(source)

    def save(self, slot: int) -> SlotState:
        """Copy a slot's state, without evicted keys."""
        self._compact(slot)
        self._sync_scores()
        kept = slice(0, self.num_keys[slot])
        return SlotState(self.cache[:, slot, :, kept].copy(), self.scores[slot, :, kept].copy(), self.lengths[slot])

    def load(self, slot: int, state: SlotState, length: int) -> None:
        """Start a slot with the first `length` tokens of a copied state: all of them if any key was evicted."""
        self.clear(slot)
        num_keys = state.scores.shape[1] if length == state.length else length
        self._reserve(slot, 1, num_keys)
        self.cache[:, slot, :, :num_keys] = state.cache[:, :, :num_keys]
        self.scores[slot, :, :num_keys] = state.scores[:, :num_keys]
        self.num_keys[slot], self.lengths[slot] = num_keys, length

    def get_length(self, slot: int) -> int:
        """Count the tokens of a slot's sequence."""
        return self.lengths[slot]

    @property
    def nbytes(self) -> int:
        """Count the bytes of all slots' keys, values and scores."""
        return self.cache.nbytes + self.scores.nbytes

    def close(self) -> None:
        """Free the session and all slots."""
        self.latest = None
        del self.session, self.cache, self.scores
