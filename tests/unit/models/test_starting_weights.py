"""Other starting weights: what changes, what stays, and that plain `transformers` still loads the model."""

import pytest
import torch
from transformers.models.doge import DogeForCausalLM as PlainDoge

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.models.starting_weights import set_starting_weights
from small_doge.utils.errors import UserError


def build(**overrides):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return DogeForCausalLM(DogeConfig(**{**sizes, "num_key_value_heads": 1, "vocab_size": 64, **overrides})).eval()


@pytest.mark.parametrize("experts", [False, True])
def test_layers_with_zero_outputs_add_nothing_at_first(experts):
    model = build(is_moe=experts, **({"num_experts": 16, "num_experts_per_tok": 2} if experts else {}))
    set_starting_weights(model, zero_outputs=True)
    ids = torch.arange(8)[None]
    states = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    torch.testing.assert_close(states[-2], model.model.embed_tokens(ids))


@pytest.mark.parametrize("tied", [False, True])
def test_embedding_gets_its_spread_and_norms_their_gain(tied):
    model = build(tie_word_embeddings=tied)
    set_starting_weights(model, embedding_std=0.5, query_key_gain=2.0)
    assert model.model.embed_tokens.weight.std().item() == pytest.approx(0.5, rel=1e-4)
    for layer in model.model.layers:
        assert bool((layer.self_attn.q_norm.weight == 2).all()) and bool((layer.self_attn.k_norm.weight == 2).all())


@pytest.mark.parametrize("tied", [False, True])
def test_a_wider_embedding_leaves_the_first_loss_near_that_of_a_guess(tied):
    model, ids = build(tie_word_embeddings=tied), torch.arange(64)[None]
    set_starting_weights(model, embedding_std=0.5)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss.item()
    assert loss == pytest.approx(torch.tensor(64.0).log().item(), rel=0.1)


def test_nothing_changes_unless_asked_for():
    before = {name: tensor.clone() for name, tensor in build().state_dict().items()}
    model = build()
    set_starting_weights(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_plain_transformers_computes_the_same(tmp_path):
    model = build(keep_window_size=64)
    set_starting_weights(model, zero_outputs=True, embedding_std=0.3, query_key_gain=1.5)
    model.save_pretrained(tmp_path)
    ids = torch.arange(12)[None]
    plain = PlainDoge.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(plain(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["embedding_std", "query_key_gain"])
def test_values_that_are_not_above_zero_are_named(name):
    with pytest.raises(UserError, match=f"init_{name}=0 must be above 0"):
        set_starting_weights(build(), **{name: 0}, prefix="init_")
