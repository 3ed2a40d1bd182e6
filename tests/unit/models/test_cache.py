import pytest
import torch
from tests.conftest import EXPERTS, TINY, build_tiny, draw_clear_rows
from transformers import DynamicCache

from small_doge import DogeForCausalLM, DynamicMaskCache
from small_doge.models.cache import CACHE_NAME


WINDOW = TINY["keep_window_size"]


def step_through(model, ids, cache, sizes, mask=None):
    """Logits of a sequence given in pieces."""
    outputs, start = [], 0
    for size in sizes:
        part = slice(start, start + size)
        given = None if mask is None else mask[:, : start + size]
        with torch.no_grad():
            outputs.append(model(ids[:, part], attention_mask=given, past_key_values=cache, use_cache=True).logits)
        start += size
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("sizes", [[1] * 40, [5, 1, 1, 20, 1, 12], [40], [8, 32], [39, 1]])
def test_bounded_cache_is_exact_for_any_pieces(sizes, repeated):
    model = build_tiny().double()
    ids = torch.randint(0, 3 if repeated else 97, (2, 40))
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
    cache = DynamicMaskCache(model.config)
    torch.testing.assert_close(step_through(model, ids, cache, sizes), expected, atol=1e-6, rtol=1e-6)
    assert cache.get_seq_length() == 40
    assert all(layer.keys.shape[2] <= WINDOW for layer in cache.layers)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tokens", [1, WINDOW - 1, WINDOW, WINDOW + 1])
def test_prompts_around_the_window_are_continued(tokens, kv_heads, batch):
    model = build_tiny(num_key_value_heads=kv_heads).double()
    ids = torch.randint(0, 97, (batch, tokens))
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **settings), model.generate(ids, use_cache=False, **settings))


@pytest.mark.parametrize("hidden_size", [192, 256])
@pytest.mark.parametrize("vocabulary", [6, 97], ids=["repetitive", "mixed"])
def test_float32_is_exact_past_the_window(hidden_size, vocabulary):
    """Equal tokens' scores differ by rounding between a pass of many tokens and one of a single token."""
    model = build_tiny(hidden_size=hidden_size, keep_window_size=32, max_position_embeddings=256)
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.dt_proj.weight, std=0.3)
    ids = draw_clear_rows(model, 4, vocabulary, 130)
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
    for sizes in ([1] * 130, [23] * 5 + [15], [60, 1, 1, 68]):
        actual = step_through(model, ids, DynamicMaskCache(model.config), sizes)
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_left_padding_changes_nothing():
    model = build_tiny().double()
    ids = torch.randint(1, 97, (1, 30))
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], dim=1)
    mask = (torch.arange(35) >= 5).long()[None]
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
    positions_agree = step_through(model, padded, DynamicMaskCache(model.config), [9, 1, 1, 24], mask)[:, 5:]
    torch.testing.assert_close(positions_agree, expected, atol=1e-5, rtol=1e-5)


def test_memory_stops_growing_at_the_window():
    model = build_tiny()
    cache = DynamicMaskCache(model.config)
    sizes = []
    for _ in range(60):
        with torch.no_grad():
            model(torch.randint(0, 97, (1, 1)), past_key_values=cache, use_cache=True)
        sizes.append(cache.nbytes)
    assert len(set(sizes[WINDOW:])) == 1


def test_beams_are_reordered():
    model = build_tiny().double()
    ids = torch.randint(0, 97, (3, 20))
    cache = DynamicMaskCache(model.config)
    step_through(model, ids, cache, [20])
    order = torch.tensor([2, 0, 0])
    cache.reorder_cache(order)
    following = torch.randint(0, 97, (3, 4))
    with torch.no_grad():
        actual = model(following, past_key_values=cache, use_cache=True).logits
        expected = model(torch.cat([ids[order], following], dim=1), use_cache=False).logits[:, -4:]
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)
    cache.batch_repeat_interleave(2)
    assert cache.layers[0].keys.shape[0] == 6
    cache.batch_select_indices(torch.tensor([1]))
    assert cache.layers[0].keys.shape[0] == 1


def test_crop_works_until_a_key_is_evicted_and_then_says_so():
    model = build_tiny().double()
    ids = torch.randint(0, 97, (1, WINDOW + 1))
    cache = DynamicMaskCache(model.config)
    step_through(model, ids[:, : WINDOW - 1], cache, [WINDOW - 1])
    cache.crop(-3)
    assert cache.get_seq_length() == WINDOW - 4
    rest = step_through(model, ids[:, WINDOW - 4 : WINDOW], cache, [4])
    with torch.no_grad():
        expected = model(ids[:, :WINDOW], use_cache=False).logits[:, -4:]
    torch.testing.assert_close(rest, expected, atol=1e-6, rtol=1e-6)
    step_through(model, ids[:, WINDOW:], cache, [1])
    with pytest.raises(
        RuntimeError, match=f"cannot crop: {WINDOW + 1} tokens went through a cache of keep_window_size"
    ):
        cache.crop(-1)


def test_reset_forgets():
    model = build_tiny()
    cache = DynamicMaskCache(model.config)
    step_through(model, torch.randint(0, 97, (1, 12)), cache, [12])
    cache.reset()
    assert cache.get_seq_length() == 0 and cache.nbytes == 0


def test_generate_uses_it_by_default_and_others_give_the_same():
    model = build_tiny()
    ids = torch.randint(0, 97, (2, 5))
    settings = {"max_new_tokens": 25, "do_sample": False, "pad_token_id": 0, "return_dict_in_generate": True}
    bounded = model.generate(ids, **settings)
    assert isinstance(bounded[CACHE_NAME], DynamicMaskCache)
    for other in ({"past_key_values": DynamicCache()}, {"use_cache": False}, {"cache_implementation": "static"}):
        assert torch.equal(model.generate(ids, **settings, **other).sequences, bounded.sequences)


def test_experts_generate_causally_with_it():
    model = build_tiny(**EXPERTS)
    ids = torch.randint(0, 97, (1, 6))
    settings = {"max_new_tokens": 15, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **settings), model.generate(ids, use_cache=False, **settings))


def test_half_precision_cache_keeps_float32_scores():
    model = build_tiny().to(torch.bfloat16)
    cache = DynamicMaskCache(model.config)
    step_through(model, torch.randint(0, 97, (1, 20)), cache, [18, 1, 1])
    assert cache.layers[0].keys.dtype == torch.bfloat16 and cache.layers[0].scores.dtype == torch.float32
    assert isinstance(model, DogeForCausalLM)


@pytest.mark.parametrize("part", ["model", "base"])
def test_the_cache_is_taken_by_either_name_of_transformers_but_not_by_both(part):
    model = build_tiny() if part == "model" else build_tiny().model
    ids = torch.randint(0, 97, (1, 6))
    whole = model(ids)[0][:, -1:]
    for name in ("past_key_values", "cache"):
        cache = DynamicMaskCache(model.config)
        assert model(ids[:, :5], **{name: cache})[CACHE_NAME] is cache
        torch.testing.assert_close(model(ids[:, 5:], **{name: cache})[0], whole)
    with pytest.raises(ValueError, match="two names of one argument"):
        model(ids, past_key_values=cache, cache=cache)


def test_checkpointing_of_activations_fills_no_cache_a_second_time():
    model = build_tiny().train()
    model.gradient_checkpointing_enable()
    ids, cache = torch.randint(0, 97, (1, 6)), DynamicCache()
    model(ids, labels=ids, past_key_values=cache).loss.backward()
    assert cache.get_seq_length() == 0
