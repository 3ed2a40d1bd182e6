"""ONNX Runtime behind the engine: an exported folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError
from .options import check_integer


# Slots beyond w in a lane. Evicted keys stay there, masked, until the lane is compacted.
SPARE_SLOTS = 256
FIRST_SLOTS = 256


def import_onnxruntime() -> Any:
    """The library, or an error that says how to get it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("this needs ONNX Runtime: pip install 'small-doge[export]'") from error
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime


@dataclass
class _Lanes:
    """What stays bound between the steps of some lanes: the binding, its values, and the buffers behind them."""

    binding: Any
    values: list[Any]
    shape: tuple[int, int] | None = None
    ids: np.ndarray | None = None
    positions: np.ndarray | None = None
    keep: np.ndarray | None = None
    logits: np.ndarray | None = None


@dataclass
class SavedLane:
    """Keys and values [2 L, K, n, d], scores [L K, n] and the number of tokens of a sequence."""

    cache: np.ndarray
    scores: np.ndarray
    length: int


class OnnxBackend:
    """A session, and the keys, values and scores of its lanes.

    Keys lie in the order of the text. A lane holds at most w + `SPARE_SLOTS` slots per head; when they are full, those
    of evicted keys are squeezed out.

    Args:
        graph: file or bytes of the model.
        settings: `num_hidden_layers`, `num_key_value_heads`, `head_size`, `vocab_size`, `keep_window_size`,
            `max_length`.
        lanes: sequences at once.
        threads: of one operator; None lets a probe choose.
    """

    def __init__(
        self, graph: str | Path | bytes, settings: dict[str, Any], lanes: int = 8, threads: int | None = None
    ) -> None:
        self.runtime = import_onnxruntime()
        self.graph = graph if isinstance(graph, bytes) else str(graph)
        self.layers, self.kv_heads = settings["num_hidden_layers"], settings["num_key_value_heads"]
        self.head_size, self.vocab_size = settings["head_size"], settings["vocab_size"]
        self.keep_window_size, self.max_length = settings["keep_window_size"], settings["max_length"]
        self.lanes = check_integer("lanes", lanes, 1)
        threads = None if threads is None else check_integer("threads", threads, 1)
        self.chunk_size = SPARE_SLOTS
        self.last = np.zeros(1, dtype=np.int64)  # the token whose scores a step gives
        self._allocate(min(FIRST_SLOTS, self._most_slots()), rows=1)
        self.filled = [0] * lanes  # slots in use, those of evicted keys included
        self.lengths = [0] * lanes  # tokens taken in
        self.latest: tuple[int, int, Any] | None = None  # lane, count and the scores after the last step
        self.threads, self.session = (threads, self._open(threads)) if threads else self._choose_threads()

    def _most_slots(self) -> int:
        most = self.keep_window_size + SPARE_SLOTS
        return most if self.max_length is None else min(most, self.max_length)

    def _open(self, threads: int) -> Any:
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        return self.runtime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])

    def _choose_threads(self) -> tuple[int, Any]:
        """Half the threads as long as that is faster: small models lose more by waiting than they gain by sharing."""
        import psutil

        threads = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
        best = (threads, self._open(threads))
        if threads == 1:
            return best
        best_time = self._time_steps(best[1])
        while threads > 1:
            threads = (threads + 1) // 2 if threads > 2 else 1
            session = self._open(threads)
            seconds = self._time_steps(session)
            if seconds > best_time:
                break
            best, best_time = (threads, session), seconds
        return best

    def _time_steps(self, session: Any) -> float:
        import time

        self.session, best = session, np.inf
        self._forget_bindings()
        for _ in range(12):
            self.clear(0)
            start = time.perf_counter()
            self.step(1, np.zeros(1, dtype=np.int64))
            best = min(best, time.perf_counter() - start)
        self.clear(0)
        self._forget_bindings()
        return best

    # Memory.

    def _allocate(self, slots: int, rows: int) -> None:
        """Buffers for `rows` lanes of `slots` slots, with what is there."""
        if hasattr(self, "cache"):
            self._sync()
        cache = np.zeros((2 * self.layers, rows, self.kv_heads, slots, self.head_size), dtype=np.float32)
        scores = np.full((rows, self.layers * self.kv_heads, slots), -np.inf, dtype=np.float32)
        if hasattr(self, "cache"):
            old_rows, old_slots = self.cache.shape[1], self.slots
            cache[:, :old_rows, :, :old_slots] = self.cache
            scores[:old_rows, :, :old_slots] = self.scores
        self.cache, self.scores, self.slots = cache, scores, slots
        self._forget_bindings()

    def _forget_bindings(self) -> None:
        self.bindings: dict[tuple[int, int], _Lanes] = {}

    def _reserve(self, lane: int, count: int, new: int) -> None:
        """Room for `new` more slots in the lanes from `lane` to `lane + count - 1`."""
        lanes = slice(lane, lane + count)
        needed = max(self.filled[lanes]) + new
        living = min(max(self.lengths[lanes]), self.keep_window_size)
        if needed > min(self._most_slots(), living + new + SPARE_SLOTS):
            for row in range(lane, lane + count):
                self._compact(row)
            needed = living + new
        if needed > self._most_slots():
            raise UserError(f"{living + new} tokens do not fit: the model takes {self.max_length}")
        slots, rows = self.slots, self.cache.shape[1]
        while slots < needed:
            slots = min(2 * slots, self._most_slots())
        while rows < lane + count:
            rows = min(2 * rows, self.lanes)
        if slots > self.slots or rows > self.cache.shape[1]:
            self._allocate(slots, rows)

    def _compact(self, lane: int) -> None:
        """Squeeze out the slots of evicted keys; the others keep their order."""
        filled, kept = self.filled[lane], min(self.lengths[lane], self.keep_window_size)
        if filled == kept:
            return
        self._sync()
        scores = self.scores[lane, :, :filled]
        # A stable sort puts the living first, in their order.
        order = np.argsort(np.isneginf(scores), axis=-1, kind="stable")[:, :kept]
        self.scores[lane, :, :kept] = np.take_along_axis(scores, order, axis=-1)
        self.scores[lane, :, kept:] = -np.inf
        order = order.reshape(self.layers, self.kv_heads, kept)
        for (layer, head), moved in np.ndenumerate((order != np.arange(kept)).argmax(axis=-1)):
            for kind in (0, 1):
                rows = self.cache[2 * layer + kind, lane, head]
                rows[moved:kept] = rows[order[layer, head, moved:]]
        self.filled[lane] = kept

    # Computation.

    def _bind(self, lane: int, count: int) -> "_Lanes":
        """Inputs and outputs of some lanes, with their caches in place."""
        key = (lane, count)
        if key not in self.bindings:
            binding, values = self.session.io_binding(), []
            for index in range(2 * self.layers):
                name = f"{'value' if index % 2 else 'key'}.{index // 2}"
                value = self.runtime.OrtValue.ortvalue_from_numpy(self.cache[index, lane : lane + count])
                binding.bind_ortvalue_input(f"past_{name}", value)
                binding.bind_ortvalue_output(f"present_{name}", value)
                values.append(value)
            self.bindings[key] = _Lanes(binding, values)
        return self.bindings[key]

    def _run(self, lane: int, count: int, ids: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Tokens [count, T] for some lanes; logits [count, len(keep), V], valid until the next call."""
        new = ids.shape[1]
        self._reserve(lane, count, new)
        rows = slice(lane, lane + count)
        filled = max(self.filled[rows])
        lanes = self._bind(lane, count)
        binding = lanes.binding
        if lanes.shape != (new, len(keep)):
            # The buffers stay bound, so that a step costs Python as little as may be.
            lanes.shape = (new, len(keep))
            lanes.ids, lanes.positions = np.zeros((2, count, new), dtype=np.int64)
            lanes.keep = np.zeros(len(keep), dtype=np.int64)
            lanes.logits = np.zeros((count, len(keep), self.vocab_size), dtype=np.float32)
            named = {"input_ids": lanes.ids, "position_ids": lanes.positions, "logits_to_keep": lanes.keep}
            lanes.values[2 * self.layers :] = [self.runtime.OrtValue.ortvalue_from_numpy(x) for x in named.values()]
            for name, value in zip(named, lanes.values[2 * self.layers :], strict=True):
                binding.bind_ortvalue_input(name, value)
            lanes.values.append(self.runtime.OrtValue.ortvalue_from_numpy(lanes.logits))
            binding.bind_ortvalue_output("logits", lanes.values[-1])
        lanes.ids[:], lanes.keep[:] = ids, keep
        np.add(np.array(self.lengths[rows])[:, None], np.arange(new), out=lanes.positions)
        if self.latest is not None and self.latest[:2] == (lane, count):
            scores = self.latest[2]
        else:
            self._sync()
            part = np.ascontiguousarray(self.scores[rows, :, :filled])
            scores = self.runtime.OrtValue.ortvalue_from_numpy(part)
        binding.bind_ortvalue_input("past_scores", scores)
        binding.bind_output("present_scores")
        self.session.run_with_iobinding(binding)
        self.latest = (
            lane,
            count,
            self.runtime.OrtValue(binding.get_outputs_as_ortvaluevector()[2 * self.layers + 1]),
        )
        self.filled[rows] = [filled + new] * count
        self.lengths[rows] = [length + new for length in self.lengths[rows]]
        return lanes.logits

    def _sync(self) -> None:
        """Bring `scores` up to date with the last step, whose own were handed on within the runtime."""
        if self.latest is not None:
            lane, count, value = self.latest
            scores = value.numpy()
            self.scores[lane : lane + count, :, : scores.shape[2]] = scores
            self.latest = None

    def extend(self, lane: int, ids: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
        """Take in tokens [T], at most `chunk_size`; logits [V] after the last, or [n, V] of those in `keep`."""
        ids = np.asarray(ids, dtype=np.int64)[None]
        logits = self._run(lane, 1, ids, np.array([ids.shape[1] - 1]) if keep is None else keep)
        return (logits[0, -1] if keep is None else logits[0]).copy()

    def step(self, count: int, tokens: np.ndarray) -> np.ndarray:
        """A token for each of the first lanes; logits [n, V], valid until the next call."""
        return self._run(0, count, tokens[:, None], self.last)[:, 0]

    def clear(self, lane: int) -> None:
        """Forget the sequence of a lane."""
        self._sync()
        self.filled[lane] = self.lengths[lane] = 0
        if lane < self.cache.shape[1]:
            self.scores[lane] = -np.inf

    def move(self, source: int, target: int) -> None:
        """Let the sequence of one lane go on in another."""
        filled = self.filled[source]
        if not filled:  # it has not begun, and may have no memory yet
            self.clear(target)
            return
        self._reserve(target, 1, 0)
        self._sync()
        self.cache[:, target, :, :filled] = self.cache[:, source, :, :filled]
        self.scores[target] = self.scores[source]
        self.filled[target], self.lengths[target] = self.filled[source], self.lengths[source]
        self.clear(source)

    def save(self, lane: int) -> SavedLane:
        """A copy of a lane's state, without evicted keys."""
        self._compact(lane)
        self._sync()
        filled = self.filled[lane]
        return SavedLane(
            self.cache[:, lane, :, :filled].copy(), self.scores[lane, :, :filled].copy(), self.lengths[lane]
        )

    def load(self, lane: int, saved: SavedLane, length: int) -> None:
        """Begin a lane with the first `length` tokens of a saved state."""
        self.clear(lane)
        filled = saved.scores.shape[1] if length == saved.length else length
        self._reserve(lane, 1, filled)
        self.cache[:, lane, :, :filled] = saved.cache[:, :, :filled]
        self.scores[lane, :, :filled] = saved.scores[:, :filled]
        self.filled[lane], self.lengths[lane] = filled, length

    def get_length(self, lane: int) -> int:
        """Tokens that a lane has taken in."""
        return self.lengths[lane]

    @property
    def nbytes(self) -> int:
        """Bytes of all lanes' keys, values and scores."""
        return self.cache.nbytes + self.scores.nbytes
