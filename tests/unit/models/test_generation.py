"""Ways of decoding that `transformers` and `peft` offer: each gives the tokens of plain decoding past the window."""

import pytest
import torch
from tests.conftest import build_tiny
from transformers import DynamicCache, GenerationConfig

from small_doge import DynamicMaskCache
from small_doge.models.cache import CACHE_NAME
from small_doge.utils.errors import UserError


SETTINGS = {"max_new_tokens": 30, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
PROMPT = torch.tensor([[5, 17, 3, 88, 5, 41, 2, 60, 9, 33, 5, 17]])  # longer than the window


def build_exact(**overrides):
    """In float64, where no rounding decides which key stays."""
    return build_tiny(num_hidden_layers=3, **overrides).double()


WAYS = {
    "assisted": lambda model: {"assistant_model": build_exact()},
    "prompt lookup": lambda model: {"prompt_lookup_num_tokens": 3},
    "early exit": lambda model: {"assistant_early_exit": 1},
    "static cache": lambda model: {"cache_implementation": "static"},
    "dynamic cache": lambda model: {"past_key_values": DynamicCache(config=model.config)},
    "bounded cache": lambda model: {"past_key_values": DynamicMaskCache(model.config)},
    "cache by its other name": lambda model: {"cache": DynamicCache(config=model.config)},
    "prompt in pieces": lambda model: {"prefill_chunk_size": 5},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_decoding_gives_the_tokens_of_plain_decoding(way):
    model = build_exact()
    expected = model.generate(PROMPT, use_cache=False, **SETTINGS)
    assert torch.equal(model.generate(PROMPT, **WAYS[way](model), **SETTINGS), expected)
    assert torch.equal(model.generate(PROMPT, **SETTINGS), expected)  # and the model is as before
    assert model.config.num_hidden_layers == 3


def test_beams_of_the_bounded_cache_are_those_of_a_cache_that_holds_all():
    model = build_exact()
    beams = [
        model.generate(PROMPT, num_beams=3, past_key_values=cache, **SETTINGS)
        for cache in (None, DynamicCache(config=model.config))
    ]
    assert torch.equal(*beams)


prefix = pytest.param(
    "PrefixTuningConfig",
    marks=pytest.mark.xfail(
        CACHE_NAME == "cache",
        raises=UserError,
        reason="peft 0.21 hands its cache over by the name that transformers used before 5.24",
    ),
)


@pytest.mark.parametrize("kind", [prefix, "PromptTuningConfig", "PromptEncoderConfig"])
def test_virtual_tokens_of_peft_learn_and_are_seen_by_every_step(kind):
    peft = pytest.importorskip("peft")
    settings = {"encoder_hidden_size": 16} if kind == "PromptEncoderConfig" else {}
    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=4, **settings)
    model = peft.get_peft_model(build_exact(), config).double()
    mask = torch.ones_like(PROMPT)
    model.train()(input_ids=PROMPT, attention_mask=mask, labels=PROMPT).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)
    model.eval()
    with torch.no_grad():
        expected = PROMPT
        for _ in range(12):
            logits = model(input_ids=expected, attention_mask=torch.ones_like(expected)).logits
            expected = torch.cat([expected, logits[:, -1:].argmax(dim=-1)], dim=1)
        found = model.generate(input_ids=PROMPT, attention_mask=mask, **{**SETTINGS, "max_new_tokens": 12})
    assert torch.equal(found, expected)


def test_continuous_batching_of_transformers_is_refused_with_the_way_on(tiny_model):
    config = GenerationConfig(max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=-1)
    with pytest.raises(NotImplementedError, match="open_engine"):
        tiny_model.generate_batch(inputs=[PROMPT[0].tolist()], generation_config=config)
