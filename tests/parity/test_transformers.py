"""Against `transformers`' own Doge, with the same weights: dense models agree to rounding, both load each other."""

import pytest
import torch
from tests.conftest import TINY
from transformers import DynamicCache
from transformers.models.doge import DogeConfig as TheirConfig
from transformers.models.doge import DogeForCausalLM as TheirModel
from transformers.models.doge import DogeForSequenceClassification as TheirClassifier

from small_doge import DogeConfig, DogeForCausalLM, DogeForSequenceClassification, DynamicMaskCache
from small_doge.ops import compute_scores
from small_doge.ops.dynamic_mask_attention import reference
from small_doge.ops.dynamic_mask_attention.reference import select_keys


WINDOW = 16
LEFT_PADDING = 3
SETTINGS = {**TINY, "keep_window_size": WINDOW, "num_hidden_layers": 3}


def make_pair(dtype=torch.float64, **overrides):
    config = TheirConfig(**{**SETTINGS, **overrides})
    config._attn_implementation = "sdpa"  # their eager softmax is float32 whatever the weights
    theirs = TheirModel(config).to(dtype).eval()
    for layer in theirs.model.layers:
        torch.nn.init.uniform_(layer.self_attn.A, 0.5, 1.0)  # scores from about 1 to 20
        torch.nn.init.normal_(layer.self_attn.dt_proj.weight, std=4.0)
    ours = DogeForCausalLM(DogeConfig(**{**SETTINGS, **overrides})).to(dtype).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def collect_scores(model, ids, step):
    """The scores [B, K, T] of each layer for tokens [B, T] that are given `step` at a time."""
    scores = [[] for _ in model.model.layers]
    hooks = [
        layer.self_attn.register_forward_pre_hook(keep_score(found), with_kwargs=True)
        for layer, found in zip(model.model.layers, scores, strict=True)
    ]
    cache = DynamicMaskCache(model.config)
    for part in ids.split(step, dim=1):
        model(part, past_key_values=cache, use_cache=True)
    for hook in hooks:
        hook.remove()
    return [torch.cat(found, dim=-1) for found in scores]


def keep_score(found):
    def hook(attention, inputs, options):
        value = attention.v_proj(inputs[0])
        found.append(compute_scores(attention.dt_proj(value), attention.A))

    return hook


@torch.no_grad()
def draw_tokens(model, batch, tokens, step=None, most_tries=125, tries_at_once=16):
    """[batch, tokens] whose scores are apart: those that ours compares in bfloat16 rank like the exact ones.

    The reference ranks the scores as they are, and leaves the order of equal ones open.
    """
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()[None, None]
    left_padded = causal & (torch.arange(tokens) >= LEFT_PADDING)
    rows = []
    for _ in range(most_tries):
        tried = torch.stack([torch.randperm(SETTINGS["vocab_size"])[:tokens] for _ in range(tries_at_once)])
        scores = collect_scores(model, tried, step or tokens)
        for row, ids in enumerate(tried):
            pairs = [(score[row : row + 1], allowed) for score in scores for allowed in (causal, left_padded)]
            if all(torch.equal(select_keys(*pair, WINDOW), select_exactly(*pair)) for pair in pairs):
                rows.append(ids)
            if len(rows) == batch:
                return torch.stack(rows)
    raise AssertionError("no tokens have scores that are apart")


def select_exactly(score, allowed):
    """The kept sets [B, K, T, N] by scores that are not rounded."""
    ranked = score[:, :, None, :].masked_fill(~allowed, float("-inf"))
    best = ranked.topk(min(WINDOW, score.shape[-1]), dim=-1).indices
    return torch.zeros_like(ranked, dtype=torch.bool).scatter(-1, best, True) & allowed


@pytest.mark.parametrize("tokens", [5, WINDOW, 50])
@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_logits_agree(tokens, padding):
    ours, theirs = make_pair()
    ids = draw_tokens(ours, 2, tokens)
    mask = torch.ones_like(ids)
    if padding == "left":
        mask[0, :LEFT_PADDING] = 0
    elif padding == "right":
        mask[0, -3:] = 0
    mask_given = None if padding == "none" else mask
    expected = theirs(ids, attention_mask=mask_given).logits
    for attn in ("sdpa", "eager", "streaming"):
        ours.set_attn_implementation(attn)
        actual = ours(ids, attention_mask=mask_given, use_cache=False).logits
        torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_past_the_window_nothing_differs_but_the_digits_by_which_keys_are_ranked(monkeypatch):
    ours, theirs = make_pair()
    ours.set_attn_implementation("reference")
    ids = torch.stack([torch.randperm(SETTINGS["vocab_size"])[:50] for _ in range(8)])
    expected = theirs(ids).logits
    difference = (ours(ids, use_cache=False).logits - expected).abs()
    assert difference[:, :WINDOW].max() < 1e-5 and difference[:, WINDOW:].max() > 1e-2
    monkeypatch.setattr(reference, "round_for_ranking", lambda score: score)
    torch.testing.assert_close(ours(ids, use_cache=False).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", [WINDOW, 50])
def test_loss_and_gradients_agree(tokens):
    ours, theirs = make_pair()
    ids = draw_tokens(ours, 2, tokens)
    losses = [model(ids, labels=ids).loss for model in (ours, theirs)]
    torch.testing.assert_close(losses[0].double(), losses[1].double(), atol=1e-5, rtol=1e-5)
    for loss in losses:
        loss.backward()
    for (name, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_float32_agrees_to_rounding():
    ours, theirs = make_pair(torch.float32)
    ids = draw_tokens(ours, 2, 40)
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("rope", ["default", "linear", "dynamic"])
def test_token_by_token_agrees_past_window_and_trained_length(rope):
    parameters = {"rope_type": rope, "rope_theta": 10000.0}
    if rope != "default":
        parameters["factor"] = 4.0
    ours, theirs = make_pair(rope_parameters=parameters, max_position_embeddings=32)
    ids = draw_tokens(ours, 1, 48, step=1 if rope == "dynamic" else None)
    caches = [None, DynamicCache()]
    with torch.no_grad():
        for t in range(48):
            mine = ours(ids[:, t : t + 1], past_key_values=caches[0], use_cache=True)
            other = theirs(ids[:, t : t + 1], past_key_values=caches[1], use_cache=True)
            caches = [mine.past_key_values, other.past_key_values]
            torch.testing.assert_close(mine.logits, other.logits, atol=1e-5, rtol=1e-5)
        if rope != "dynamic":
            torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"repetition_penalty": 1.5}])
def test_generate_agrees_past_the_window(options):
    ours, theirs = make_pair()
    ids = draw_tokens(ours, 2, 12)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    settings = {"attention_mask": mask, "max_new_tokens": 30, "do_sample": False, "pad_token_id": 0, **options}
    assert torch.equal(ours.generate(ids, **settings), theirs.generate(ids, **settings))


@pytest.mark.parametrize("sizes", [{}, {"head_dim": 24}], ids=["derived", "given"])
def test_saved_folders_load_both_ways(tmp_path, sizes):
    ours, theirs = make_pair(torch.float32, **sizes)
    ids = draw_tokens(ours, 1, 20)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    torch.testing.assert_close(
        TheirModel.from_pretrained(tmp_path / "ours")(ids).logits, theirs(ids).logits, atol=2e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        DogeForCausalLM.from_pretrained(tmp_path / "theirs")(ids).logits, ours(ids).logits, atol=2e-5, rtol=1e-4
    )


def test_classification_agrees():
    settings = {**SETTINGS, "num_labels": 3, "pad_token_id": 0}
    ours = DogeForSequenceClassification(DogeConfig(**settings)).eval()
    theirs = TheirClassifier(TheirConfig(**settings)).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ids = torch.randint(1, 97, (3, 12))
    ids[1, -4:] = 0
    mask = (ids != 0).long()
    torch.testing.assert_close(
        ours(ids, attention_mask=mask).logits, theirs(ids, attention_mask=mask).logits, atol=1e-5, rtol=1e-4
    )


def test_experts_agree_for_one_token_where_their_routing_is_right():
    settings = {**SETTINGS, "is_moe": True, "num_experts": 64, "num_experts_per_tok": 4}
    ours, theirs = DogeForCausalLM(DogeConfig(**settings)).eval(), TheirModel(TheirConfig(**settings)).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ids = torch.tensor([[7]])
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-4)
    more = torch.tensor([[7, 8, 9]])
    assert not torch.allclose(ours(more).logits, theirs(more).logits, atol=1e-3)


@pytest.mark.parametrize("name", ["Doge-20M", "Doge-60M", "Doge-160M", "Doge-320M"])
def test_presets_have_the_published_sizes(name):
    published = {"Doge-20M": 13.1e6, "Doge-60M": 54.6e6, "Doge-160M": 152.6e6, "Doge-320M": 335.5e6}
    config = DogeConfig.from_preset(name)
    fields = {k: v for k, v in config.to_dict().items() if k not in ("model_type", "legacy_routing")}
    with torch.device("meta"):
        ours, theirs = DogeForCausalLM(config), TheirModel(TheirConfig(**fields))
    assert ours.num_parameters() == theirs.num_parameters()
    assert abs(ours.num_parameters() / published[name] - 1) < 0.002
