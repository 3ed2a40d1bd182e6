"""Eviction in the exported graph equals the masking of `small_doge.ops`, and the numpy code that documents it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_doge.ops.dynamic_mask_attention.masking import compute_leaving_index, round_for_ranking


onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
KV_HEADS, HEADS = 2, 4


def make_session(window, is_needed=True):
    """A graph that has eviction alone: scores in, bias and scores out."""
    from onnx import TensorProto, helper

    from small_doge.inference.graph import IR_VERSION, OPSET
    from small_doge.inference.graph_builder import MICROSOFT, GraphBuilder
    from small_doge.inference.graph_eviction import Eviction

    b = GraphBuilder()
    batch, num_new, num_past = (
        b.add("Shape", [f], start=i, end=i + 1) for f, i in (("new", 0), ("new", 2), ("past", 2))
    )
    eviction = Eviction(b, window, HEADS, KV_HEADS, batch, num_new, num_past, "num_keys", is_needed)
    blank = b.add("Expand", ["minus_infinity", b.add("Shape", ["new"])])
    scores = [b.add("Unsqueeze", [part, b.integers(2)]) for part in (b.add("Concat", ["past", blank], axis=2), "new")]
    bias, present = eviction.apply(*scores)
    b.add("Identity", [bias], ["bias"])
    b.add("Squeeze", [present, b.integers(2)], ["present"])
    info, float32 = helper.make_tensor_value_info, TensorProto.FLOAT
    inputs = [info(name, float32, ["batch", KV_HEADS, name]) for name in ("past", "new")]
    inputs.append(info("position_ids", TensorProto.INT64, ["batch", "new"]))
    inputs.append(info("num_keys", TensorProto.INT64, ["batch"]))
    outputs = [info("bias", float32, ["batch", HEADS, "new", "total"])]
    outputs.append(info("present", float32, ["batch", KV_HEADS, "total"]))
    graph = helper.make_graph(b.nodes, "eviction", inputs, outputs, list(b.weights.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run_in_pieces(session, scores, sizes):
    """Which queries see which keys [K, T, T], and the scores [K, T] at the end."""
    num_tokens = scores.shape[1]
    past, seen, start = scores[None, :, :0], np.zeros((KV_HEADS, num_tokens, num_tokens), dtype=bool), 0
    for size in sizes:
        feed = {"past": past, "new": scores[None, :, start : start + size]}
        feed |= {"position_ids": np.arange(start, start + size)[None], "num_keys": np.array([start])}
        bias, past = session.run(["bias", "present"], feed)
        bias = bias[0, :: HEADS // KV_HEADS]
        for query in range(size):
            seen[:, start + query, : start + query + 1] = bias[:, query, : start + query + 1] > -np.inf
        start += size
    return seen, past[0]


def evict_in_numpy(past, new, window, first_position):
    """The code at the head of `graph_eviction`, for one row and head."""
    num_past, num_new = len(past), len(new)
    score = np.concatenate([past, new])
    spare = window - min(first_position, window)
    num_leaving = max(num_new - spare, 0)
    rank = round_for_ranking(torch.from_numpy(np.abs(score))).numpy()
    leaving = np.argsort(rank, kind="stable")[:num_leaving]
    query = np.arange(num_new)
    has_arrived = leaving - num_past <= query[:, None]
    is_gone = has_arrived & (np.cumsum(has_arrived, axis=1) <= query[:, None] + 1 - spare)
    leaves_at = np.full(num_past + num_new, num_new)
    leaves_at[leaving] = (~is_gone).sum(axis=0)
    bias = np.where(query[:, None] < leaves_at, score, -np.inf)
    return bias, np.where(leaves_at < num_new, -np.inf, score)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_queries_see_the_keys_that_the_masking_of_ops_leaves_them(data):
    window, num_tokens = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 40))
    levels = data.draw(st.sampled_from([2, 5, 10**6]))  # few levels: many equal scores
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    scores = np.exp(random.integers(0, levels, (KV_HEADS, num_tokens)) / levels).astype(np.float32)
    sizes, left = [], num_tokens
    while left:
        sizes.append(data.draw(st.integers(1, left)))
        left -= sizes[-1]
    seen, present = run_in_pieces(make_session(window), scores, sizes)
    leaves_at = compute_leaving_index(torch.from_numpy(scores)[None], window, chunk_size=7)[0].numpy()
    query, key = np.arange(num_tokens)[:, None], np.arange(num_tokens)
    expected = (key <= query) & (query < leaves_at[:, None])
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_array_equal(present, np.where(expected[:, -1], scores, -np.inf))

    past = np.zeros((KV_HEADS, 0), dtype=np.float32)
    for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        new = scores[:, start : start + size]
        past = np.stack([evict_in_numpy(past[head], new[head], window, start)[1] for head in range(KV_HEADS)])
    np.testing.assert_array_equal(past, present)


def test_without_eviction_every_query_sees_every_key():
    scores = np.arange(1, 13, dtype=np.float32).reshape(KV_HEADS, 6)
    seen, present = run_in_pieces(make_session(6, is_needed=False), scores, [4, 1, 1])
    np.testing.assert_array_equal(seen, np.tril(np.ones((6, 6), dtype=bool))[None].repeat(KV_HEADS, 0))
    np.testing.assert_array_equal(present, scores)


@pytest.mark.parametrize(("window", "is_needed"), [(4, True), (50, True), (50, False)])
def test_rows_with_keys_of_different_numbers_step_together_as_each_alone(window, is_needed):
    random, session = np.random.default_rng(0), make_session(window, is_needed)
    lengths, steps = np.array([1, 9, 3]), 12
    scores = np.exp(random.random((3, KV_HEADS, max(lengths) + steps))).astype(np.float32)
    alone = [
        run_in_pieces(session, scores[row, :, : n + steps], [n, *[1] * steps])[1] for row, n in enumerate(lengths)
    ]
    past = np.full((3, KV_HEADS, max(lengths)), -np.inf, dtype=np.float32)
    for row, length in enumerate(lengths):
        past[row, :, :length] = run_in_pieces(session, scores[row, :, :length], [length])[1]
    for step in range(steps):
        now = lengths + step
        feed = {"past": past, "new": scores[np.arange(3), :, now][..., None], "num_keys": now}
        past = session.run(["present"], {**feed, "position_ids": now[:, None]})[0]
    for row, expected in enumerate(alone):
        np.testing.assert_array_equal(past[row, :, : expected.shape[1]], expected)
        assert np.isneginf(past[row, :, expected.shape[1] :]).all()
