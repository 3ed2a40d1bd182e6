"""Muon: updates against a plain computation, AdamW beside it, saved state, and what it refuses."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.optim import Muon, is_muon_parameter, orthogonalize, split_parameters
from small_doge.optim.muon import NS_COEFFICIENTS
from small_doge.utils.errors import UserError


def build_doge(**overrides):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return DogeForCausalLM(DogeConfig(**{**sizes, "num_key_value_heads": 1, "vocab_size": 64, **overrides}))


def take_steps(model, optimizer, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        ids = torch.randint(0, 64, (2, 16), generator=generator)
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


def muon_of(model, **muon):
    return Muon(split_parameters(model, {"lr": 0.02, **muon}, {"lr": 1e-3}, {"lr": 1e-3, "weight_decay": 0.1}))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(2, 24), st.integers(2, 24), st.integers(0, 10**6))
def test_singular_values_end_near_one_and_vectors_stay(count, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(count, rows, rows, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(count, columns, columns, generator=generator)).Q
    least = min(rows, columns)
    values = torch.linspace(1.0, 0.2, least)
    matrices = left[:, :, :least] * values @ right[:, :, :least].mT
    result = orthogonalize(matrices).float()
    inner = left[:, :, :least].mT @ result @ right[:, :, :least]
    diagonal = inner.diagonal(dim1=-2, dim2=-1)
    assert ((diagonal > 0.6) & (diagonal < 1.3)).all()
    assert (inner - torch.diag_embed(diagonal)).abs().max() < 0.05


def test_update_is_that_of_one_matrix_at_a_time():
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((12, 6), (6, 12), (12, 6))]
    expected = [weight.detach().clone() for weight in weights]
    momenta = [torch.zeros_like(weight) for weight in weights]
    optimizer = Muon(weights, lr=0.1, momentum=0.9, weight_decay=0.05)
    for _ in range(3):
        for index, weight in enumerate(weights):
            gradient = torch.randn_like(weight)
            weight.grad = gradient
            momenta[index] = 0.9 * momenta[index] + 0.1 * gradient
            x = 0.1 * gradient + 0.9 * momenta[index]
            x = x / x.norm()
            a, b, c = NS_COEFFICIENTS
            for _ in range(5):
                gram = x @ x.T
                x = a * x + (b * gram + c * gram @ gram) @ x
            rate = 0.1 * max(1, weight.shape[0] / weight.shape[1]) ** 0.5
            expected[index] = expected[index] * (1 - 0.1 * 0.05) - rate * x
        optimizer.step()
    for weight, wanted in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach(), wanted)


def test_other_groups_are_trained_as_by_adamw():
    torch.manual_seed(0)
    mine, theirs = ([nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(5))] for _ in range(2))
    ours = Muon(mine, lr=0.01, weight_decay=0.1, betas=(0.8, 0.9), use_muon=False)
    peer = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, betas=(0.8, 0.9))
    for _ in range(4):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        ours.step()
        peer.step()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_cautious_decay_shrinks_only_what_the_update_shrinks():
    weight = nn.Parameter(torch.tensor([[2.0, -2.0], [3.0, 3.0]]))
    weight.grad = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    before, plain = weight.detach().clone(), copy.deepcopy(weight)
    plain.grad = weight.grad.clone()
    Muon([plain], lr=0.1, weight_decay=0.0).step()
    Muon([weight], lr=0.1, weight_decay=0.5, cautious_weight_decay=True).step()
    shrunk = plain.detach() - weight.detach()
    helped = ((plain.detach() - before) * before) < 0
    torch.testing.assert_close(shrunk, torch.where(helped, before * 0.05, 0.0))
    assert helped.any() and not helped.all()


def test_momentum_warms_up_by_the_steps_of_each_parameter():
    weight = nn.Parameter(torch.eye(2))
    optimizer = Muon([weight], momentum=0.95, momentum_warmup_steps=4)
    shares = []
    for _ in range(6):
        before = optimizer.state[weight].get("momentum_buffer", torch.zeros(2, 2)).clone()
        weight.grad = before + torch.eye(2)
        optimizer.step()
        shares.append(1 - (optimizer.state[weight]["momentum_buffer"] - before)[0, 0].item())
    assert shares == pytest.approx([0.875, 0.9, 0.925, 0.95, 0.95, 0.95], abs=1e-5)


def test_resumed_state_goes_on_bit_for_bit():
    whole = build_doge()
    optimizer = muon_of(whole, momentum_warmup_steps=8)
    take_steps(whole, optimizer, 3)
    resumed = build_doge()
    resumed.load_state_dict(whole.state_dict())
    other = muon_of(resumed, momentum_warmup_steps=8)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_steps(whole, optimizer, 3, seed=2)
    take_steps(resumed, other, 3, seed=2)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_state_from_a_cpu_goes_on_on_a_gpu():
    model = build_doge()
    optimizer = muon_of(model)
    take_steps(model, optimizer, 2)
    moved = build_doge().cuda()
    other = muon_of(moved)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    ids = torch.arange(16, device="cuda")[None]
    moved(input_ids=ids, labels=ids).loss.backward()
    other.step()
    assert all(bool(p.isfinite().all()) for p in moved.parameters())


@pytest.mark.parametrize("experts", [False, True])
def test_matrices_of_attention_and_feed_forward_alone_go_to_muon(experts):
    model = build_doge(is_moe=experts, **({"num_experts": 16, "num_experts_per_tok": 2} if experts else {}))
    chosen = {name.split(".")[-2] for name, p in model.named_parameters() if is_muon_parameter(name, p)}
    assert chosen == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    groups = split_parameters(model, {"lr": 1.0}, {"lr": 2.0}, {"lr": 3.0, "weight_decay": 0.1})
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert [group["lr"] for group in groups] == [3.0, 3.0, 2.0, 1.0]
    assert all(p.dim() == 1 for p in groups[1]["params"]) and groups[1]["weight_decay"] == 0.0


def test_training_lowers_the_loss():
    model = build_doge()
    ids = torch.arange(64).repeat(2, 2)
    optimizer = Muon(split_parameters(model, {"lr": 0.02}, {"lr": 0.02}, {"lr": 0.01}))
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_frozen_parameters_are_in_no_group_and_missing_gradients_are_left_alone():
    model = build_doge()
    model.model.embed_tokens.weight.requires_grad_(False)
    groups = split_parameters(model, {"lr": 1.0}, {"lr": 2.0}, {"lr": 3.0})
    assert all(p is not model.model.embed_tokens.weight for group in groups for p in group["params"])
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    Muon(groups).step()
    assert torch.equal(before, model.model.layers[0].mlp.up_proj.weight)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"lr": -1.0}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"ns_steps": 0}, "ns_steps"),
        ({"betas": (0.9, 1.0)}, "betas"),
    ],
)
def test_values_out_of_range_are_named(settings, named):
    with pytest.raises(UserError, match=named):
        Muon([nn.Parameter(torch.ones(2, 2))], **settings)


def test_group_that_is_refused_is_not_added():
    optimizer = Muon([nn.Parameter(torch.ones(2, 2))])
    with pytest.raises(UserError, match="momentum"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, 2))], "momentum": 1.0})
    assert len(optimizer.param_groups) == 1


def test_parameter_that_is_no_matrix_is_refused_with_the_remedy():
    with pytest.raises(UserError, match="split_parameters"):
        Muon([nn.Parameter(torch.ones(3))])
