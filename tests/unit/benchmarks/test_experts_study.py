"""The study of experts: equal active parameters, equal time, what it says when something does not fit."""

from itertools import pairwise

import pytest
import torch
from benchmarks.studies import experts
from benchmarks.studies.expert_layers import TopKMoE, WithDense, count_active_parameters

from small_doge import ops
from small_doge.models.doge.feed_forward import DogeCDMoE
from small_doge.utils.errors import UserError


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
@pytest.mark.parametrize("kind", ["moe", "cdmoe", "pkm", "peer"])
def test_every_layer_has_the_active_parameters_of_the_dense_one(kind, scale):
    sizes = experts.SIZES[scale]
    hidden = sizes["model"]["hidden_size"]
    budget = 3 * hidden * sizes["model"]["intermediate_size"]
    for variant in sizes["variants"]:
        if variant.startswith(f"{kind}:"):
            layer = experts.build_layer(kind, int(variant.partition(":")[2]), sizes, budget)
            neuron = 3 * hidden * (layer.top_k if isinstance(layer, TopKMoE) else 1)
            assert 0 <= budget - count_active_parameters(layer) < neuron


def test_a_cdmoe_counts_its_dense_layer_its_router_and_the_experts_of_a_token():
    sizes = experts.SIZES["smoke"]
    layer = experts.build_layer("cdmoe", 16, sizes, 3 * 16 * 64)
    assert isinstance(layer, DogeCDMoE)
    width = layer.gate_proj.out_features
    assert count_active_parameters(layer) == 3 * 16 * width + 2 * 4 * 16 + 2 * 4 * 16


def test_retrieving_layers_meet_as_many_weights_of_experts():
    sizes = experts.SIZES["cpu"]
    budget = 3 * 64 * 256
    cdmoe, pkm, peer = (experts.build_layer(kind, 4096, sizes, budget) for kind in ("cdmoe", "pkm", "peer"))
    assert isinstance(pkm, WithDense)
    x = torch.randn(5, 64)
    pkm(x), peer(x)
    assert 2 * cdmoe.top_k == pkm.layer.chosen.shape[1] == 2 * peer.layer.chosen.shape[1]


def test_a_router_that_takes_the_whole_budget_is_refused():
    with pytest.raises(UserError, match=r"--variants moe:65536: its router alone has more than the 49,152"):
        experts.build_layer("moe", 65536, experts.SIZES["cpu"], 49152)


@pytest.mark.parametrize("variant", ["cdmeo:16", "cdmoe", "dense:4", "moe:many"])
def test_names_of_variants_are_checked(variant):
    with pytest.raises(UserError, match="variant"):
        experts.parse_variant(variant)


def test_the_balance_loss_joins_the_loss_in_training_alone():
    torch.manual_seed(0)
    model = experts.WithBalance(experts.build_model("moe:4", experts.SIZES["smoke"], 32))
    ids = torch.randint(0, 32, (2, 8))
    trained = model.train()(input_ids=ids, labels=ids).loss
    balance = model.mixtures[0].balance_loss
    evaluated = model.eval()(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(trained, evaluated + 0.01 * balance)


def test_cdmoe_is_balanced_if_asked_for():
    torch.manual_seed(0)
    model = experts.build_model("cdmoe-balanced:16", experts.SIZES["smoke"], 32)
    plain, balanced = experts.WithBalance(model).train(), experts.WithBalance(model, balance_cdmoe=True).train()
    ids = torch.randint(0, 32, (2, 8))
    loss = balanced(input_ids=ids, labels=ids).loss
    ((layer, logits),) = balanced.router_logits.items()
    expected = ops.compute_load_balancing_loss((logits,), layer.top_k)
    torch.testing.assert_close(loss, plain(input_ids=ids, labels=ids).loss + 0.01 * expected)


@pytest.mark.parametrize("variant", ["moe:4", "cdmoe:16", "pkm:16", "peer:16"])
def test_use_is_the_share_of_experts_that_the_rows_choose(variant):
    torch.manual_seed(0)
    model = experts.build_model(variant, experts.SIZES["smoke"], 32).eval()
    rows = torch.randint(0, 32, (1, 3)).numpy()
    inputs = []
    layer = model.model.layers[0].mlp
    hook = layer.register_forward_hook(lambda module, args, outputs: inputs.append((args[0], outputs)))
    share = experts.measure_use(model, rows, 1, "cpu")
    hook.remove()
    if variant.startswith("cdmoe"):
        chosen, count = ops.route_tokens(inputs[0][1][1], layer.top_k)[1], 16
    else:
        chosen = (layer if variant.startswith("moe") else layer.layer).chosen
        count = int(variant.partition(":")[2])
    assert share == len({int(e) for e in chosen.flatten()}) / count


def test_a_smallest_study_runs_and_goes_on_where_it_was_killed(texts, tmp_path, monkeypatch):
    data, tokenizer = texts
    files = ["--output", str(tmp_path / "out.md"), "--resume", str(tmp_path / "runs.jsonl")]
    command = ["--scale", "smoke", "--seeds", "0", "1", "--data", data, "--tokenizer", tokenizer, *files]
    train_variant, trained = experts.Experts.train_variant, []

    def killed_after_two(self, setting):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append((setting["variant"], setting["seed"]))
        return train_variant(self, setting)

    variants = ["--variants", "cdmoe:16"]  # dense is there anyway
    monkeypatch.setattr(experts.Experts, "train_variant", killed_after_two)
    with pytest.raises(KeyboardInterrupt):
        experts.main([*command, *variants])
    monkeypatch.setattr(experts.Experts, "train_variant", train_variant)
    assert trained == [("dense", 0), ("cdmoe:16", 0)]
    first = (tmp_path / "runs.jsonl").read_text(encoding="utf-8")
    experts.main([*command, *variants])
    assert (tmp_path / "runs.jsonl").read_text(encoding="utf-8").startswith(first)
    text = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert (tmp_path / "out.png").exists()
    assert "| dense | 3,072 |" in text and "| cdmoe:16 | 3,040 |" in text
    assert "nan" not in text


def test_decays_begin_from_the_stable_rate_and_end_at_each_number_of_steps(texts, monkeypatch):
    data, tokenizer = texts
    parts = []

    def record(model, batches, steps, lr, *, schedule, **options):
        parts.append([round(schedule(step), 3) for step in range(steps)])
        return [{"step": steps, "held_out": 1.0}]

    monkeypatch.setattr(experts, "train", record)
    arguments = type("Arguments", (), {"scale": "smoke", "device": "cpu", "data": [data], "tokenizer": tokenizer})
    study = experts.Experts(arguments)
    study.train_variant({"variant": "dense", "seed": 0, "steps": 20, "equal_time_steps": 10})
    assert parts == [[1] * 8, [1, 0.5], [1] * 8, [1, 0.75, 0.5, 0.25]]
    assert all(after <= before for part in parts for before, after in pairwise(part))
