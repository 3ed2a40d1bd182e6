"""The exported graph computes what the model computes, for any way of cutting the text into pieces."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import EXPERTS, draw_clear_rows

from small_doge.models import DynamicMaskCache

from .conftest import build_model, distinct_tokens, run_pieces


@torch.no_grad()
def reference(model, tokens):
    return model(torch.from_numpy(tokens)[None]).logits[0].numpy()


SHAPES = {
    "grouped heads": {},
    "one key-value head": {"num_key_value_heads": 1},
    "a key-value head each": {"num_key_value_heads": 4},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "untied head": {"tie_word_embeddings": False},
    "odd widths": {"hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 50},
    "relu": {"hidden_act": "relu"},
    "gelu": {"hidden_act": "gelu"},
    "one layer": {"num_hidden_layers": 1},
    "experts": EXPERTS,
    "yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
}


@pytest.mark.parametrize(
    ("window", "limit"),
    [(8, None), (64, None), (64, 64)],
    ids=["past the window", "within the window", "limited to the window"],
)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_float32_graph_gives_the_logits_of_pytorch(make_backend, shape, window, limit):
    model = build_model(keep_window_size=window, **shape)
    tokens = distinct_tokens(40, 97)
    expected = reference(model, tokens)
    backend = make_backend(model, max_length=limit)
    np.testing.assert_allclose(run_pieces(backend, tokens, [40]), expected, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(run_pieces(backend, tokens, [5, 14]), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("name", ["grouped heads", "biases", "untied head", "odd widths", "experts"])
def test_quantised_graph_gives_the_logits_of_pytorch_with_the_dequantised_weights(make_backend, name, quantize):
    model = build_model(keep_window_size=8, **SHAPES[name])
    backend = make_backend(model, quantize)
    tokens = distinct_tokens(30, 97)
    before = reference(model, tokens)
    unknown = model.load_state_dict(
        {key: torch.from_numpy(value) for key, value in backend.rounded.items()}, strict=False
    ).unexpected_keys
    assert not unknown
    expected = reference(model, tokens)
    assert np.abs(expected - before).max() > 1e-3  # the rounding shows
    np.testing.assert_allclose(run_pieces(backend, tokens, [12]), expected, atol=1e-4 * np.abs(expected).max())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_pieces_give_the_same_as_the_full_selection(make_backend, data):
    window = data.draw(st.integers(1, 12))
    model = build_model(keep_window_size=window, num_hidden_layers=1)
    length = data.draw(st.integers(1, 60))
    pieces, left = [], length
    while left:
        pieces.append(data.draw(st.integers(1, left)))
        left -= pieces[-1]
    tokens = distinct_tokens(length, 97, seed=data.draw(st.integers(0, 9)))
    backend = make_backend(model)
    expected = reference(model, tokens)
    np.testing.assert_allclose(run_pieces(backend, tokens, pieces), expected, atol=3e-5 * np.abs(expected).max())


@pytest.mark.parametrize("vocabulary", [5, 97], ids=["repetitive", "mixed"])
def test_text_with_repetitions_keeps_the_keys_of_pytorch_past_the_window(make_backend, vocabulary):
    model = build_model(keep_window_size=24, hidden_size=192)
    tokens = draw_clear_rows(model, 1, vocabulary, 100)[0].numpy()
    expected = reference(model, tokens)
    backend = make_backend(model)
    for pieces in ([], [100], [40, 1, 17]):
        np.testing.assert_allclose(run_pieces(backend, tokens, pieces), expected, atol=3e-5 * np.abs(expected).max())


def test_equal_scores_leave_the_oldest_first(make_backend):
    # A = 0: every score is 1, and the selection is a sliding window.
    model = build_model(keep_window_size=6)
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.A)
    tokens = np.array([5, 5, 7, 5, 9, 7, 7, 5, 1, 2, 5, 5, 5, 7, 9, 9, 5, 1, 1, 1, 2, 3])
    expected = reference(model, tokens)
    backend = make_backend(model)
    for pieces in ([22], [1, 3, 9], [10]):
        np.testing.assert_allclose(run_pieces(backend, tokens, pieces), expected, atol=3e-5 * np.abs(expected).max())


@torch.no_grad()
def test_text_of_many_windows_needs_no_more_memory_and_gives_what_the_bounded_cache_gives(make_backend, monkeypatch):
    from small_doge.inference import onnx_backend

    monkeypatch.setattr(onnx_backend, "SPARE_KEYS", 16)
    monkeypatch.setattr(onnx_backend, "INITIAL_KEYS", 4)
    model = build_model(keep_window_size=12, vocab_size=701, num_hidden_layers=1)
    backend, tokens = make_backend(model), distinct_tokens(700, 701)
    cache, sizes = DynamicMaskCache(model.config), set()
    for index, token in enumerate(tokens):
        expected = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits[0, -1].numpy()
        logits = backend.prefill(0, tokens[index : index + 1])
        assert np.abs(logits - expected).max() < 3e-5 * np.abs(expected).max()
        if index > 100:
            sizes.add(backend.nbytes)
    assert len(sizes) == 1 and backend.key_capacity == 12 + 16


def test_graph_for_texts_within_the_window_has_nothing_for_eviction():
    graph_module = pytest.importorskip("small_doge.inference.graph")
    from small_doge.inference.graph_weights import WEIGHT_FORMATS

    def operators(max_length):
        graph = graph_module.DogeGraph(model, WEIGHT_FORMATS["int8"], max_length).build().graph
        return {node.op_type for node in graph.node}

    model = build_model(keep_window_size=64)
    assert "If" in operators(None) and "If" in operators(65)
    assert not operators(64) & {"If", "TopK"}


@pytest.mark.parametrize(("window", "limit"), [(8, None), (64, 64)], ids=["past the window", "limited to the window"])
def test_slots_of_different_lengths_step_together_to_the_last_bit_as_each_alone(
    make_backend, monkeypatch, window, limit
):
    monkeypatch.setattr("small_doge.inference.onnx_backend.SPARE_KEYS", 16)
    model = build_model(keep_window_size=window)
    backend, alone = make_backend(model, max_length=limit), make_backend(model, max_length=limit)
    texts = [distinct_tokens(length, 97, seed=length) for length in (3, 14, 11)]
    for slot, text in enumerate(texts):
        backend.prefill(slot, text)
    steps = distinct_tokens(40, 97, seed=99)
    together = np.stack([backend.decode(3, np.full(3, token)).copy() for token in steps])
    for slot, text in enumerate(texts):
        expected = run_pieces(alone, np.concatenate([text, steps]), [len(text)])[len(text) :]
        np.testing.assert_array_equal(together[:, slot], expected)
        positions = [[keys.positions for keys in layer] for layer in backend.read_keys(slot)]
        assert positions == [[keys.positions for keys in layer] for layer in alone.read_keys(0)]


def test_export_that_knows_no_numbers_of_keys_goes_on(make_backend, monkeypatch):
    """One of an older version."""
    model = build_model(keep_window_size=8)
    backend, alone = make_backend(model), make_backend(model)
    monkeypatch.setattr("small_doge.inference.onnx_backend.SPARE_KEYS", 16)
    monkeypatch.setattr(backend.session, "has_num_keys", False)
    texts = [distinct_tokens(length, 97, seed=length) for length in (3, 14, 11)]
    for slot, text in enumerate(texts):
        backend.prefill(slot, text)
    steps = distinct_tokens(40, 97, seed=99)
    together = np.stack([backend.decode(3, np.full(3, token)).copy() for token in steps])
    for slot, text in enumerate(texts):
        expected = run_pieces(alone, np.concatenate([text, steps]), [len(text)])[len(text) :]
        np.testing.assert_allclose(together[:, slot], expected, atol=3e-5 * np.abs(expected).max())


@pytest.mark.parametrize("cut", [2, 16, 28])
def test_prompt_in_chunks_of_several_tokens_gives_the_bits_of_the_whole(make_backend, cut):
    backend, tokens = make_backend(build_model(keep_window_size=8)), distinct_tokens(30, 97)
    whole = backend.prefill(0, tokens)
    backend.clear(0)
    backend.prefill(0, tokens[:cut])
    np.testing.assert_array_equal(backend.prefill(0, tokens[cut:]), whole)


def test_saved_and_moved_slots_go_on_as_they_were(make_backend):
    model = build_model(keep_window_size=8)
    backend = make_backend(model)
    tokens = distinct_tokens(40, 97)
    expected = run_pieces(backend, tokens, [30])[30:]
    backend.clear(0)
    backend.prefill(0, tokens[:30])
    saved = backend.save(0)
    backend.move(0, 2)
    for slot, prepare in ((2, lambda: None), (1, lambda: backend.load(1, saved, 30))):
        prepare()
        logits = np.stack([backend.prefill(slot, tokens[i : i + 1]) for i in range(30, 40)])
        np.testing.assert_allclose(logits, expected, atol=3e-5 * np.abs(expected).max())


def test_state_is_cut_back_to_a_shorter_text_while_nothing_was_evicted(make_backend):
    model = build_model(keep_window_size=32)
    backend, tokens = make_backend(model), distinct_tokens(20, 97)
    backend.prefill(0, tokens)
    backend.load(1, backend.save(0), 7)
    other = distinct_tokens(5, 97, seed=5)
    expected = run_pieces(backend, np.concatenate([tokens[:7], other]), [12])[-1]
    np.testing.assert_allclose(backend.prefill(1, other), expected, atol=3e-5 * np.abs(expected).max())


@torch.no_grad()
def test_dynamic_rope_turns_by_the_frequencies_of_the_stated_length(make_backend):
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    model = build_model(keep_window_size=16, rope_parameters=rope, max_position_embeddings=32)
    tokens = distinct_tokens(30, 97)
    within = reference(model, tokens)
    np.testing.assert_allclose(run_pieces(make_backend(model), tokens, [30]), within, atol=3e-5 * np.abs(within).max())
    longer = make_backend(model, max_length=90)
    model(torch.from_numpy(distinct_tokens(90, 97))[None])  # the model now turns by the frequencies of 90 tokens
    model.model.rotary_emb.rope_type = "default"
    expected = reference(model, tokens)
    assert np.abs(expected - within).max() > 1e-3
    np.testing.assert_allclose(run_pieces(longer, tokens, [30]), expected, atol=3e-5 * np.abs(expected).max())
