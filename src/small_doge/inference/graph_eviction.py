"""Eviction in the exported graph: which keys each query sees, and the scores after the step.

It selects the keys that the masking of `small_doge.ops` selects, with ONNX operators and one call at a time;
`tests/unit/inference/test_graph_eviction.py` states that they are equal. In numpy, for one row and key-value head, with
P keys before, T new ones, S = P + T, and w the window:

    score = concatenate([past, new])              # [S], positive; -inf for a key that was evicted
    spare = w - min(first_position, w)            # free places before the step
    num_leaving = max(T - spare, 0)
    rank = bfloat16(abs(score))                   # inf for evicted keys, which therefore do not leave again
    leaving = argsort(rank, kind="stable")[:num_leaving]    # the worst first; of equal ones the oldest first

    # One query: the worst key leaves if there is no free place.
    score[leaving] += -inf if spare <= 0 else 0
    bias = score

    # Several queries: the i-th query must have lost i + 1 - spare of the keys that have arrived, the worst of them.
    query = arange(T)
    has_arrived = leaving - P <= query[:, None]             # [T, leaving]
    is_gone = has_arrived & (cumsum(has_arrived, axis=1) <= query[:, None] + 1 - spare)
    leaves_at = full(S, T)
    leaves_at[leaving] = (~is_gone).sum(axis=0)             # the first query that does not see the key
    bias = where(query[:, None] < leaves_at, score, -inf)   # [T, S]; attention itself is causal
    score = where(leaves_at < T, -inf, score)

Rows of a batch may differ in `spare`; `num_leaving` is then the largest of them, which for a single query adds 0 to the
score of a row that is not full. They may also have fewer than P keys: -inf stands in place of the others, and the new score
is written after the row's own keys, so that a row does not depend on the others. Batches of several queries have one row
(docs/deployment.md).
"""

import numpy as np
from onnx import TensorProto

from .graph_builder import GraphBuilder


class Eviction:
    """Adds the nodes that evict keys to a graph, with a branch for each case, so that the cheap ones stay cheap.

    Shapes: B batch, T new tokens, P keys before, S = P + T, K key-value heads, H heads.

    Args:
        builder: of the graph.
        keep_window_size: w.
        num_heads: H.
        num_kv_heads: K.
        batch: name of B, [1] int64.
        num_new: name of T, [1] int64.
        num_past: name of P, [1] int64.
        num_keys: name of the keys of each row before, [B] int64, or [1] if all rows have as many.
        is_needed: False if no text is longer than the window: no key is ever evicted then.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        keep_window_size: int,
        num_heads: int,
        num_kv_heads: int,
        batch: str,
        num_new: str,
        num_past: str,
        num_keys: str,
        is_needed: bool,
    ) -> None:
        self.builder = builder
        self.keep_window_size = keep_window_size
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.batch, self.num_new, self.num_past = batch, num_new, num_past
        self.is_needed = is_needed
        builder.weight("minus_infinity", -np.inf, np.float32)
        self.places = self._find_places(num_keys)
        if is_needed:
            self._prepare()
        else:
            self.query_shape = self._make_query_shape()

    def apply(self, scores: str, new: str) -> list[str]:
        """Add the nodes of one layer.

        Args:
            scores: name of the scores [B, K, 1, S] of all keys, those of the new ones still -inf.
            new: name of the scores [B, K, 1, T] of the new keys.

        Returns:
            The names of the attention bias [B, 1 or H, T, S] and of the scores [B, K, 1, S] after the step.
        """
        b = self.builder
        if not self.is_needed:
            return self._keep_all(self._put(scores, new), self.query_shape)
        first = len(b.nodes)
        simple = b.branch(self._make_row(self._put(scores, new)), first)
        single = b.branch(self._evict_one(self._put(scores, new)), first)
        staying = b.branch(self._keep_all(self._put(scores, new), self._make_query_shape()), first)
        several = b.branch(self._evict_several(self._put(scores, new)), first)
        many = b.branch(b.add("If", [self.all_stay], 2, then_branch=staying, else_branch=several), first)
        evicting = b.branch(b.add("If", [self.is_single], 2, then_branch=single, else_branch=many), first)
        return b.add("If", [self.is_simple], 2, then_branch=simple, else_branch=evicting)

    def _put(self, scores: str, new: str) -> str:
        """Put the scores [B, K, 1, T] of new keys after the row's own among all [B, K, 1, S]."""
        return self.builder.add("ScatterElements", [scores, self.places, new], axis=3)

    def _find_places(self, num_keys: str) -> str:
        """Return the places [B, K, 1, T] of the new keys among all."""
        b = self.builder
        shape = b.add("Concat", [self.batch, b.integers(self.num_kv_heads, 1), self.num_new], axis=0)
        places = b.add("Reshape", [num_keys, b.integers(-1, 1, 1, 1)])
        steps = b.add("Range", [b.number(0), b.add("Squeeze", [self.num_new]), b.number(1)])
        return b.add("Expand", [b.add("Add", [places, steps]), shape])

    def _make_query_shape(self) -> str:
        """Add [1, 1, T, 1], to which a bias without queries is expanded."""
        return self.builder.add(
            "Concat", [self.builder.integers(1, 1), self.num_new, self.builder.integers(1)], axis=0
        )

    def _prepare(self) -> None:
        """Add what all layers share; a single token before the window is full needs nothing of it."""
        b, window = self.builder, self.keep_window_size
        self.is_single = b.add("Squeeze", [b.add("Equal", [self.num_new, b.integers(1)])])
        longest = b.add("ReduceMax", ["position_ids"], keepdims=0)
        self.all_stay = b.add("Less", [longest, b.number(window)])
        self.is_simple = b.add("And", [self.is_single, self.all_stay])
        begin = len(b.nodes)
        nothing = [*(b.integers(0) for _ in range(3)), b.weight("zero", 0.0, np.float32)]
        none = b.branch([b.add("Identity", [name]) for name in nothing], begin)
        begin = len(b.nodes)
        # The first position is the number of tokens before, of which a row holds w at most.
        first = b.add("Slice", ["position_ids", b.integers(0), b.integers(1), b.integers(1)])
        spare = b.add("Sub", [b.integers(window), b.add("Min", [first, b.integers(window)])])  # [B, 1]
        most = b.add("Sub", [self.num_new, b.add("ReduceMin", [spare], keepdims=0)])
        leaving = b.add("Max", [most, b.integers(0)])
        index = b.add("Range", [b.number(0), b.add("Squeeze", [self.num_new]), b.number(1)])
        index = b.add("Reshape", [index, b.integers(1, 1, -1, 1)])
        is_full = b.add("LessOrEqual", [spare, b.integers(0)])
        effect = b.add("Where", [is_full, "minus_infinity", b.weight("zero", 0.0, np.float32)])
        effect = b.add("Unsqueeze", [effect, b.integers(2, 3)])  # [B, 1, 1, 1]
        some = b.branch([spare, leaving, index, effect], begin)
        self.spare, self.num_leaving, self.query_index, self.effect = b.add(
            "If", [self.is_simple], 4, then_branch=none, else_branch=some
        )

    def _make_row(self, scores: str) -> list[str]:
        """Return the bias of a single query, and the scores."""
        bias = self._repeat_heads(scores)
        return [self.builder.add("Identity", [bias]) if bias == scores else bias, scores]

    def _keep_all(self, scores: str, query_shape: str) -> list[str]:
        """Return bias and scores if every query sees every key before it."""
        return [self.builder.add("Expand", [self._repeat_heads(scores), query_shape]), scores]

    def _find_leaving(self, scores: str) -> str:
        """Return the indices of the keys that leave, the worst first.

        TopK takes the first of equal values, which is the oldest key.
        """
        b = self.builder
        rounded = b.add("Cast", [b.add("Abs", [scores])], to=TensorProto.BFLOAT16)
        rank = b.add("Cast", [rounded], to=TensorProto.FLOAT)
        _, leaving = b.add("TopK", [rank, self.num_leaving], 2, axis=3, largest=0, sorted=1)
        return leaving

    def _evict_one(self, scores: str) -> list[str]:
        """Return bias and scores for a single query in each row, at which a key leaves if the row is full."""
        b = self.builder
        leaving = self._find_leaving(scores)
        worst = b.add("GatherElements", [scores, leaving], axis=3)
        return self._make_row(b.add("ScatterElements", [scores, leaving, b.add("Add", [worst, self.effect])], axis=3))

    def _evict_several(self, scores: str) -> list[str]:
        """Return bias and scores for several queries of one row, or of several rows without keys before."""
        b = self.builder
        leaving = self._find_leaving(scores)
        query = self.query_index  # [1, 1, T, 1]
        arrival = b.add("Sub", [leaving, self.num_past])
        has_arrived = b.add("LessOrEqual", [arrival, query])  # [B, K, T, leaving]
        rank = b.add("CumSum", [b.add("Cast", [has_arrived], to=TensorProto.INT32), b.number(3)])
        too_many = b.add(
            "Sub", [b.add("Add", [query, b.integers(1)]), b.add("Reshape", [self.spare, b.integers(-1, 1, 1, 1)])]
        )
        stays = b.add("Greater", [rank, b.add("Cast", [too_many], to=TensorProto.INT32)])
        not_gone = b.add("Cast", [b.add("Or", [stays, b.add("Not", [has_arrived])])], to=TensorProto.INT64)
        leaves_at = b.add("ReduceSum", [not_gone, b.integers(2)])  # [B, K, 1, leaving]
        never = b.add("Expand", [self.num_new, b.add("Shape", [scores])])
        leaves_at = b.add("ScatterElements", [never, leaving, leaves_at], axis=3)  # [B, K, 1, S]
        sees = b.add("Less", [query, self._repeat_heads(leaves_at)])
        bias = b.add("Where", [sees, self._repeat_heads(scores), "minus_infinity"])
        return [bias, b.add("Where", [b.add("Less", [leaves_at, self.num_new]), "minus_infinity", scores])]

    def _repeat_heads(self, x: str) -> str:
        """Repeat [B, K, ...] to [B, H, ...], for each query head of a key-value head; unchanged if all share one."""
        if self.num_kv_heads in (1, self.num_heads):
            return x
        heads = (head * self.num_kv_heads // self.num_heads for head in range(self.num_heads))
        return self.builder.add("Gather", [x, self.builder.integers(*heads)], axis=1)
