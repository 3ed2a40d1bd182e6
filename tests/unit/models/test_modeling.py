import pytest
import torch
from tests.conftest import EXPERTS, TINY, build_tiny
from transformers import AutoModelForCausalLM

from small_doge import DogeConfig, DogeForCausalLM, DogeForSequenceClassification


@pytest.mark.parametrize("experts", [{}, EXPERTS], ids=["dense", "experts"])
@pytest.mark.parametrize("attention", ["auto", "reference", "streaming", "flex"])
@pytest.mark.parametrize("tokens", [8, 30])
def test_later_tokens_never_change_earlier_logits(experts, attention, tokens):
    model = build_tiny(**experts).double()
    model.set_attn_implementation(attention)
    ids = torch.randint(0, 97, (2, tokens))
    changed = ids.clone()
    changed[:, tokens // 2 :] = (changed[:, tokens // 2 :] + 1) % 97
    with torch.no_grad():
        before, after = (model(x, use_cache=False).logits for x in (ids, changed))
    torch.testing.assert_close(before[:, : tokens // 2], after[:, : tokens // 2], atol=1e-9, rtol=0)
    assert not torch.allclose(before[:, tokens // 2 :], after[:, tokens // 2 :])


def test_rows_of_a_batch_do_not_see_each_other_with_experts():
    model = build_tiny(**EXPERTS)
    ids = torch.randint(0, 97, (2, 12))
    torch.testing.assert_close(model(ids).logits[:1], model(ids[:1]).logits, atol=1e-5, rtol=1e-5)


def test_packed_documents_are_independent_and_right_without_a_mask():
    model = build_tiny().double()
    documents = [torch.randint(0, 97, (1, n)) for n in (3, 14, 9)]
    packed = torch.cat(documents, dim=1)
    positions = torch.cat([torch.arange(d.shape[1]) for d in documents])[None]
    actual = model(packed, position_ids=positions).logits
    expected = torch.cat([model(d).logits for d in documents], dim=1)
    torch.testing.assert_close(actual, expected, atol=1e-9, rtol=0)


def test_restarting_positions_with_a_mask_are_left_padding_not_documents():
    model = build_tiny().double()
    ids = torch.randint(0, 97, (1, 6))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]])
    positions = torch.tensor([[0, 0, 0, 1, 2, 3]])
    actual = model(ids, attention_mask=mask, position_ids=positions).logits[:, 2:]
    torch.testing.assert_close(actual, model(ids[:, 2:]).logits, atol=1e-9, rtol=0)


@pytest.mark.parametrize("experts", [{}, EXPERTS], ids=["dense", "experts"])
def test_gradient_checkpointing_changes_no_gradient(experts):
    model = build_tiny(**experts).train()
    ids = torch.randint(0, 97, (2, 20))
    model(ids, labels=ids).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(ids, labels=ids).loss.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], msg=name)


def test_training_gives_the_loss_without_logits_and_evaluation_gives_both():
    model = build_tiny()
    ids = torch.randint(0, 97, (2, 9))
    out = model(ids, labels=ids)
    expected = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(out.loss, expected)
    assert model(ids, labels=ids, skip_logits=True).logits is None
    model.train()
    assert model(ids, labels=ids).logits is None
    assert model(ids, labels=ids, skip_logits=False).logits is not None


def test_router_loss_parts_add_up_under_accumulation():
    model = build_tiny(**EXPERTS, output_router_logits=True).train()
    ids = torch.randint(0, 97, (4, 9))
    count = 4 * 8
    plain = [model(row[None], labels=row[None]) for row in ids]
    parts = sum(model(row[None], labels=row[None], num_items_in_batch=torch.tensor(count)).loss for row in ids)
    torch.testing.assert_close(parts, torch.stack([out.loss for out in plain]).mean())
    assert plain[0].aux_loss > 0


def test_router_loss_of_padded_rows_counts_the_new_tokens_after_a_cache():
    model = build_tiny(**EXPERTS, output_router_logits=True)
    ids = torch.randint(0, 97, (2, 6))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, attention_mask=mask, use_cache=False, **settings)
    assert torch.equal(model.generate(ids, attention_mask=mask, **settings), expected)


def test_dense_models_never_report_a_router_loss(tiny_model):
    ids = torch.randint(0, 97, (1, 4))
    assert tiny_model(ids, labels=ids, output_router_logits=True).aux_loss is None


def test_generate_takes_what_a_chat_template_returns(tiny_model, tiny_tokenizer):
    model = DogeForCausalLM(DogeConfig(**{**TINY, "vocab_size": 512})).eval()
    messages = [{"role": "user", "content": "Where does Ada live?"}]
    inputs = tiny_tokenizer.apply_chat_template(
        messages, tokenize=True, return_tensors="pt", add_generation_prompt=True
    )
    out = model.generate(inputs, max_new_tokens=4, do_sample=False, tokenizer=tiny_tokenizer)
    assert torch.equal(
        out,
        model.generate(
            inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=4, do_sample=False
        ),
    )
    assert torch.equal(out, model.generate(**inputs, max_new_tokens=4, do_sample=False))


def test_word_embeddings_are_tied_and_saved_once(tmp_path, tiny_model):
    from safetensors import safe_open

    assert tiny_model.lm_head.weight is tiny_model.model.embed_tokens.weight
    tiny_model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in set(file.keys())
        assert "model.layers.0.self_attn.q_proj.weight" in set(file.keys())
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("experts", [{}, EXPERTS], ids=["dense", "experts"])
def test_auto_classes_build_ours(tmp_path, experts):
    model = build_tiny(**experts)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is DogeForCausalLM
    ids = torch.randint(0, 97, (1, 12))
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits)


def test_compiled_model_equals_the_plain_one():
    model = build_tiny().train()
    ids = torch.randint(0, 97, (2, 8))
    compiled = torch.compile(model, backend="aot_eager")
    expected = model(ids, labels=ids).loss
    actual = compiled(ids, labels=ids).loss
    torch.testing.assert_close(actual, expected)
    model.zero_grad()
    actual.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.slow
def test_inductor_trains_past_the_window_and_packed():
    model = build_tiny().train()
    compiled = torch.compile(model)
    ids = torch.randint(0, 97, (1, 30))
    positions = torch.cat([torch.arange(10), torch.arange(20)])[None]
    for options in ({}, {"position_ids": positions}):
        expected = model(ids, labels=ids, **options).loss
        torch.testing.assert_close(compiled(ids, labels=ids, **options).loss, expected, atol=1e-5, rtol=1e-5)


def test_classifier_reads_the_last_real_token():
    model = DogeForSequenceClassification(DogeConfig(**TINY, num_labels=3, pad_token_id=0)).eval()
    ids = torch.randint(1, 97, (1, 6))
    padded = torch.cat([ids, torch.zeros(1, 3, dtype=torch.long)], dim=1)
    mask = (padded != 0).long()
    torch.testing.assert_close(model(padded, attention_mask=mask).logits, model(ids).logits, atol=1e-5, rtol=1e-5)


def test_legacy_routing_equals_transformers_and_warns(tmp_path):
    from transformers.models.doge import DogeConfig as TheirConfig
    from transformers.models.doge import DogeForCausalLM as TheirModel

    theirs = TheirModel(TheirConfig(**TINY, **EXPERTS)).eval()
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path, legacy_routing=True)
    ids = torch.randint(0, 97, (2, 6))
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-4)


def test_every_projection_is_a_plain_linear_layer(tiny_model):
    """What wraps or replaces linear layers (adapters, quantisation) relies on their plain type and call."""
    layers = {name: module for name, module in tiny_model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {name.rpartition(".")[2] for name in layers} >= {"dt_proj", "lm_head", "q_proj", "down_proj"}
    assert all(type(module) is torch.nn.Linear for module in layers.values())


class _Wrapped(torch.nn.Module):
    """A linear layer in another module, as adapters and quantisation put it."""

    def __init__(self, base):
        super().__init__()
        self.base_layer, self.calls = base, 0

    @property
    def weight(self):
        return self.base_layer.weight

    def forward(self, x):
        self.calls += 1
        return 2 * self.base_layer(x)


@pytest.mark.parametrize("name", ["lm_head", "dt_proj"])
def test_wrapped_linear_layers_are_called_with_and_without_labels(name):
    model = build_tiny(tie_word_embeddings=False).double()
    ids = torch.randint(0, 97, (2, 20))
    before = model(ids, labels=ids, use_cache=False)
    owner = model if name == "lm_head" else model.model.layers[0].self_attn
    wrapped = _Wrapped(getattr(owner, name))
    setattr(owner, name, wrapped)
    out = model(ids, labels=ids, skip_logits=False, use_cache=False)
    assert wrapped.calls > 0
    assert not torch.allclose(out.logits, before.logits)
    expected = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(out.loss, expected)
    torch.testing.assert_close(model.train()(ids, labels=ids).loss, expected)
    model(ids, labels=ids).loss.backward()
    assert wrapped.base_layer.weight.grad.abs().sum() > 0


def test_hooks_on_the_head_are_honoured():
    model = build_tiny().train()
    ids = torch.randint(0, 97, (2, 12))
    expected = model(ids, labels=ids).loss
    handle = model.lm_head.register_forward_hook(lambda module, inputs, output: 3 * output)
    assert not torch.allclose(model(ids, labels=ids).loss, expected)
    handle.remove()
    torch.testing.assert_close(model(ids, labels=ids).loss, expected)


def test_a_batch_with_nothing_to_learn_gives_a_loss_and_gradients_of_zero():
    ids = torch.randint(0, 97, (2, 12))
    for plain in (True, False):
        model = build_tiny(tie_word_embeddings=False).train()
        if not plain:
            model.lm_head = _Wrapped(model.lm_head)
        loss = model(ids, labels=torch.full_like(ids, -100)).loss
        loss.backward()
        assert loss.item() == 0.0
        assert all(p.grad is None or (p.grad == 0).all() for p in model.parameters())


@pytest.mark.parametrize("targets", ["all-linear", ["dt_proj"], ["lm_head", "q_proj"], ["embed_tokens"]])
def test_adapters_of_any_layer_learn_and_merge(targets):
    peft = pytest.importorskip("peft", reason="needs: pip install 'small-doge[lora]'")
    model = build_tiny(tie_word_embeddings=False)
    ids = torch.randint(0, 97, (2, 20))
    config = peft.LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).train()
    adapted(input_ids=ids, labels=ids).loss.backward()
    gradients = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
    assert gradients and all(g is not None and g.abs().sum() > 0 for g in gradients.values())
    adapted.eval()
    with torch.no_grad():
        expected = adapted(input_ids=ids, use_cache=False).logits
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(merged(ids, use_cache=False).logits, expected, atol=1e-4, rtol=1e-4)
