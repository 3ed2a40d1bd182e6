"""A cache of 8-bit keys and values: a quarter of the memory, nearly the same logits, the same selection rule."""

import json

import numpy as np
import pytest

from small_doge.inference import OnnxEngine
from small_doge.utils.errors import UserError

from .conftest import build_model, distinct_tokens, run_pieces, settings_of


pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from small_doge.inference.export import export_onnx
from small_doge.inference.export_checks import calibrate_cache
from small_doge.inference.graph import DogeGraph, set_accuracy, set_cache_scales
from small_doge.inference.graph_weights import WEIGHT_FORMATS
from small_doge.inference.onnx_backend import OnnxBackend


WINDOW = 16
TOKENS = distinct_tokens(60, 97)


@pytest.fixture(scope="module")
def model():
    return build_model(keep_window_size=WINDOW)


@pytest.fixture(scope="module")
def plain(model):
    return open_backend(model)


@pytest.fixture(scope="module")
def scales(plain):
    rows = [distinct_tokens(WINDOW, 97, seed) for seed in range(8)]
    return calibrate_cache(plain, rows)


@pytest.fixture(scope="module")
def rounded(model, scales):
    return open_backend(model, scales)


def open_backend(model, scales=None):
    proto, settings = (
        set_accuracy(DogeGraph(model, WEIGHT_FORMATS["none"], None).build(), 1),
        settings_of(model.config),
    )
    if scales is not None:
        set_cache_scales(proto, scales)
        settings["kv_cache_dtype"] = "int8"
    return OnnxBackend(proto.SerializeToString(), settings, num_slots=4, threads=1)


@pytest.mark.parametrize("pieces", [[], [7, 20], [60]])
def test_logits_are_nearly_those_of_a_float32_cache_past_the_window_too(plain, rounded, pieces):
    expected, found = (run_pieces(backend, TOKENS, pieces) for backend in (plain, rounded))
    errors = np.sqrt(np.square(found - expected).mean(axis=-1)) / expected.std(axis=-1)
    assert 0 < np.median(errors) < 0.02


def test_the_first_layer_keeps_the_same_keys_since_scores_are_not_rounded(plain, rounded):
    kept = []
    for backend in (plain, rounded):
        run_pieces(backend, TOKENS, [20])
        kept.append([head.positions for head in backend.read_keys(0)[0]])
    assert all(np.array_equal(a, b) for a, b in zip(*kept, strict=True))
    assert len(kept[0][0]) == WINDOW


def test_keys_and_values_take_a_quarter_of_the_memory(plain, rounded):
    sizes = [
        backend.max_nbytes - backend._make_cache(backend._get_max_keys(), 1)[1].nbytes for backend in (plain, rounded)
    ]
    assert sizes[0] == 4 * sizes[1] > 0


def test_what_a_slot_gives_does_not_depend_on_what_is_beside_it(rounded):
    prompts = [TOKENS[:5], TOKENS[3:40], TOKENS[10:22]]
    alone = []
    for prompt in prompts:
        rounded.clear(0)
        rounded.prefill(0, prompt)
        alone.append(rounded.decode(1, np.array([1]))[0].copy())
    for slot, prompt in enumerate(prompts):
        rounded.clear(slot)
        rounded.prefill(slot, prompt)
    np.testing.assert_array_equal(rounded.decode(3, np.array([1, 1, 1])), alone)


def test_a_saved_state_goes_on_as_if_it_had_stayed(rounded):
    rounded.clear(0)
    rounded.prefill(0, TOKENS[:30])
    state = rounded.save(0)
    expected = rounded.prefill(0, TOKENS[30:33])
    rounded.load(1, state, state.length)
    np.testing.assert_array_equal(rounded.prefill(1, TOKENS[30:33]), expected)
    assert state.cache.dtype == np.int8


def test_scales_hold_for_keys_at_any_position(plain, scales):
    row = distinct_tokens(WINDOW, 97, seed=0)  # one of those that gave the scales
    plain.clear(0)
    for _ in range(6):
        plain.prefill(0, row)
        keys = plain.cache[0, 0, :, plain.num_keys[0] - len(row) : plain.num_keys[0]]
        assert (np.abs(keys) <= 127.001 * scales[0][0]).all()  # of the first layer, which the tokens alone decide


def test_an_export_tells_its_cache_and_what_it_costs(model, tmp_path):
    facts = export_onnx(model, None, tmp_path / "export", "none", max_perplexity_increase=1, kv_cache_dtype="int8")
    assert facts["cache"].startswith("int8, ")
    settings = json.loads((tmp_path / "export" / "runtime.json").read_text())
    assert (settings["version"], settings["kv_cache_dtype"]) == (2, "int8")
    engine = OnnxEngine(tmp_path / "export")
    assert len(list(engine.stream([1, 2, 3], max_new_tokens=3 * WINDOW, ignore_eos=True))) == 3 * WINDOW
    assert engine.backend.cache.dtype == np.int8


def test_an_export_with_a_float32_cache_is_what_older_readers_take(model, tmp_path):
    export_onnx(model, None, tmp_path / "export", "none")
    settings = json.loads((tmp_path / "export" / "runtime.json").read_text())
    assert settings["version"] == 1 and "kv_cache_dtype" not in settings


def test_an_unknown_type_is_named_with_the_nearest(model, tmp_path):
    with pytest.raises(UserError, match="int8"):
        export_onnx(model, None, tmp_path / "export", kv_cache_dtype="int9")
