"""On a CUDA device: the same numbers as on a processor, and every kind of training, generation and serving."""

import copy
import math

import pytest
import torch
from tests.conftest import EXPERTS, build_tiny
from tests.golden.runs import RECIPE_STAGES, RECIPES, prepare, shrink

from small_doge import DogeConfig, DogeForCausalLM, DynamicMaskCache, ops
from small_doge.inference import TorchEngine
from small_doge.trainer.callbacks import read_log
from small_doge.trainer.runner import train_stage


DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# Distance of a result from the float64 one, as a share of its length.
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
PACKED = torch.cat([torch.arange(300), torch.arange(17), torch.arange(83)])


def distance(actual, expected):
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    return float((actual - expected).norm() / expected.norm())


def make_parts(tokens, size, heads=4, kv_heads=2):
    query = torch.randn(2, heads, tokens, size, dtype=torch.float64)
    key, value = (torch.randn(2, kv_heads, tokens, size, dtype=torch.float64) for _ in range(2))
    score = torch.rand(2, kv_heads, tokens, dtype=torch.float64) + 0.2
    # What the bfloat16 inputs can hold, so that both see the same numbers and rank them alike.
    return [x.bfloat16().double().requires_grad_() for x in (query, key, value, score)]


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("case", ["plain", "packed", "padded"])
@pytest.mark.parametrize(
    ("backend", "window", "kv_heads"),
    [("reference", 128, 2), ("fused", 512, 2), ("streaming", 128, 2), ("auto", 128, 1), ("flex", 128, 2)],
)
def test_attention_and_its_gradients_are_those_of_a_processor_in_float64(backend, window, kv_heads, case, dtype):
    exact = make_parts(400, 64, kv_heads=kv_heads)
    options = {"keep_window_size": window}
    if case == "packed":
        options["document_ids"] = (PACKED == 0).cumsum(0).expand(2, -1)
    if case == "padded":
        options["padding_mask"] = torch.arange(400) >= torch.tensor([[0], [90]])
    expected = ops.dynamic_mask_attention(*exact, backend="reference", **options)
    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, exact, upstream)
    found = [x.detach().to(DEVICE, torch.float32 if i == 3 else dtype).requires_grad_() for i, x in enumerate(exact)]
    on_device = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    actual = ops.dynamic_mask_attention(*found, backend=backend, **on_device)
    assert distance(actual, expected) < LIMITS[dtype]
    for ours, right in zip(torch.autograd.grad(actual, found, upstream.to(actual)), gradients, strict=True):
        assert distance(ours, right) < 2 * LIMITS[dtype]


@pytest.mark.parametrize("experts", [{}, EXPERTS], ids=["dense", "experts"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_has_the_loss_and_gradients_of_a_processor(experts, checkpointing):
    model = build_tiny(**experts).train()
    ids = torch.randint(0, 97, (2, 40))
    loss = model(ids, labels=ids).loss
    loss.backward()
    twin = copy.deepcopy(model).to(DEVICE)
    twin.zero_grad()
    if checkpointing:
        twin.activation_checkpointing_enable()
    found = twin(ids.to(DEVICE), labels=ids.to(DEVICE)).loss
    found.backward()
    assert float(found) == pytest.approx(float(loss), rel=1e-5)
    for (name, right), ours in zip(model.named_parameters(), twin.parameters(), strict=True):
        if right.grad.norm() > 1e-6:
            assert distance(ours.grad, right.grad) < 1e-3, name


@pytest.mark.parametrize("experts", [{}, EXPERTS], ids=["dense", "experts"])
def test_bfloat16_training_learns_a_packed_row(experts):
    model = build_tiny(**experts).train().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    ids = torch.randint(0, 97, (1, 60), device=DEVICE)
    positions = torch.cat([torch.arange(40), torch.arange(20)])[None].to(DEVICE)
    losses = []
    for _ in range(40):
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = model(ids, labels=ids, position_ids=positions).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2


def test_the_bounded_cache_continues_a_text_as_a_full_pass_does():
    model = build_tiny().to(DEVICE)
    ids = torch.randint(0, 97, (2, 30), device=DEVICE)
    full = model(ids, use_cache=False).logits
    cache = DynamicMaskCache(model.config)
    parts = [model(part, past_key_values=cache, use_cache=True).logits for part in ids.split([13, *[1] * 17], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), full, atol=1e-4, rtol=1e-3)


def test_generated_tokens_are_those_of_a_processor():
    model = build_tiny()
    ids, mask = torch.randint(3, 97, (2, 20)), torch.arange(20) >= torch.tensor([[0], [5]])
    options = {"max_new_tokens": 30, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(ids, attention_mask=mask.long(), **options)
    found = model.to(DEVICE).generate(ids.to(DEVICE), attention_mask=mask.long().to(DEVICE), **options)
    assert found.cpu().tolist() == expected.tolist()


@pytest.mark.xfail(reason="seen 0.001 to 0.007 away with torch 2.11 on an H100; the cause is not found")
@pytest.mark.parametrize("experts", [{}, EXPERTS], ids=["dense", "experts"])
def test_a_compiled_model_has_the_loss_of_the_plain_one(experts):
    model = build_tiny(**experts).train().to(DEVICE)
    ids = torch.randint(0, 97, (2, 24), device=DEVICE)
    plain = model(ids, labels=ids).loss
    compiled = torch.compile(model)
    loss = compiled(ids, labels=ids).loss
    loss.backward()
    torch.testing.assert_close(loss, plain, atol=1e-4, rtol=1e-4)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_an_engine_answers_several_requests_as_greedy_generation_does():
    model = build_tiny().to(DEVICE)
    prompts = [torch.randint(3, 97, (n,)).tolist() for n in (5, 21, 9)]
    engine = TorchEngine(model, num_slots=2)
    answers = [engine.stream(prompt, max_new_tokens=8, temperature=0.0, ignore_eos=True) for prompt in prompts]
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt], device=DEVICE)
        right = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert list(answer) == right[0, len(prompt) :].tolist()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda")
    prepare(folder)
    return folder


@pytest.mark.parametrize("name", RECIPE_STAGES)
def test_two_steps_of_every_trainer_in_bfloat16(name, prepared):
    changes = shrink(name, prepared, "cuda") | {
        "use_cpu": DEVICE == "cpu",
        "bf16": True,
        "max_steps": 2,
        "eval_steps": 2,
    }
    output = train_stage(RECIPE_STAGES[name], RECIPES / f"{name}.yaml", changes)
    losses = [row["loss"] for row in read_log(output / "training_log.jsonl") if "loss" in row]
    assert losses and all(map(math.isfinite, losses))
    assert DogeForCausalLM.from_pretrained(output).config.model_type == DogeConfig.model_type
