import re

import pytest
import torch
from tests.conftest import TINY, build_tiny
from transformers import AutoModelForCausalLM, DynamicCache

from small_doge import DogeConfig, DogeForCausalLM, ops
from small_doge.utils.errors import UserError


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("auto", "auto"),
        ("reference", "reference"),
        ("fused", "fused"),
        ("streaming", "streaming"),
        ("flex", "flex"),
        ("eager", "reference"),
        ("sdpa", "auto"),
        ("flex_attention", "flex"),
        (None, "auto"),
    ],
)
def test_every_name_of_an_implementation_reaches_its_backend(tmp_path, monkeypatch, name, backend):
    model = build_tiny()
    model.save_pretrained(tmp_path)
    ids = torch.randint(0, 97, (1, 8 if name == "fused" else 20))
    expected = model(ids, use_cache=False).logits
    asked, attend = [], ops.dynamic_mask_attention
    monkeypatch.setattr(
        ops,
        "dynamic_mask_attention",
        lambda *args, **options: asked.append(options["backend"]) or attend(*args, **options),
    )
    for load in (DogeForCausalLM, AutoModelForCausalLM):
        loaded = load.from_pretrained(tmp_path, attn_implementation=name)
        with torch.no_grad():  # on a CPU, FlexAttention has no backward pass
            torch.testing.assert_close(loaded(ids, use_cache=False).logits, expected, atol=1e-5, rtol=1e-5)
    if name is not None:
        model.set_attn_implementation(name)
        with torch.no_grad():
            model(ids, use_cache=False)
    assert set(asked) == {backend}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("flash_attention_2", "flex_attention"),
        ("streamin", "streaming"),
        ("kernels-community/flash-attn", None),
        ("paged|eager", "eager"),
    ],
)
def test_other_implementations_are_errors_wherever_they_are_asked_for(tmp_path, name, nearest):
    model = build_tiny()
    model.save_pretrained(tmp_path)
    message = re.escape(f"unknown attn_implementation {name!r}") + (f"; did you mean {nearest!r}" if nearest else "")
    with pytest.raises(UserError, match=message):
        AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=name)
    with pytest.raises(UserError, match=message):
        DogeForCausalLM(DogeConfig(**TINY, attn_implementation=name))
    with pytest.raises(UserError, match=message):
        model.set_attn_implementation(name)
    assert model.config._attn_implementation == "sdpa"
    model.config._attn_implementation = name
    with pytest.raises(UserError, match=message):
        model(torch.randint(0, 97, (1, 4)), use_cache=False)


def test_fused_attention_says_that_a_text_is_longer_than_the_window():
    model = build_tiny(attn_implementation="fused")
    with pytest.raises(UserError, match="keep_window_size=8 tokens, got 9; use backend='streaming' or 'auto'"):
        model(torch.randint(0, 97, (1, 9)), use_cache=False)


def test_attentions_and_hidden_states_are_returned():
    model = build_tiny()
    ids = torch.randint(0, 97, (2, 12))
    out = model(ids, output_attentions=True, output_hidden_states=True, use_cache=False)
    assert [tuple(a.shape) for a in out.attentions] == [(2, 4, 12, 12)] * 2
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(2, 4, 12))
    assert (out.attentions[0] > 0).sum(-1).max() <= TINY["keep_window_size"]
    assert len(out.hidden_states) == 3
    torch.testing.assert_close(out.logits, model(ids).logits, atol=1e-5, rtol=1e-5)


def test_attentions_with_a_cache_of_transformers():
    model = build_tiny()
    out = model(torch.randint(0, 97, (1, 5)), output_attentions=True, past_key_values=DynamicCache(), use_cache=True)
    assert out.attentions[0].shape == (1, 4, 5, 5)


def test_any_other_mask_is_honoured():
    model = build_tiny().double()
    ids = torch.randint(0, 97, (1, 7))
    causal = torch.ones(7, 7, dtype=torch.bool).tril()[None, None]
    torch.testing.assert_close(model(ids, attention_mask=causal).logits, model(ids).logits, atol=1e-9, rtol=0)


def test_scores_are_float32_under_autocast_and_in_half_precision():
    model = build_tiny()
    scores = []
    compute = model.model.layers[0].self_attn._compute_scores
    model.model.layers[0].self_attn._compute_scores = lambda value: scores.append(compute(value)) or scores[-1]
    ids = torch.randint(0, 97, (1, 6))
    with torch.autocast("cpu", torch.bfloat16):
        model(ids, use_cache=False)
    model.to(torch.bfloat16)(ids, use_cache=False)
    assert [score.dtype for score in scores] == [torch.float32] * 2
