"""Tokens to a loss: recipes by name, where a curve comes down to a loss, a run at its smallest size."""

import json
import math

import pytest
from benchmarks import bench_tokens

from small_doge.utils.errors import UserError


def test_a_recipe_is_a_name_and_its_changes():
    recipe, budgets = bench_tokens.parse_recipe("muon,muon_lr=0.01,zero_outputs=true,step_tokens=2048,budgets=0.4/0.2")
    assert budgets == [0.2, 0.4]
    assert (recipe.optimizer, recipe.muon_lr, recipe.zero_outputs, recipe.step_tokens) == ("muon", 0.01, True, 2048)


@pytest.mark.parametrize(("text", "near"), [("muno", "muon"), ("muon,moun_lr=1", "muon_lr")])
def test_unknown_names_get_the_near_one(text, near):
    with pytest.raises(UserError, match=near):
        bench_tokens.parse_recipe(text)


def test_a_loss_is_reached_between_two_budgets():
    budgets, losses = [0.25, 0.5, 1.0], [4.0, 3.0, 2.0]
    assert bench_tokens.tokens_to_reach(budgets, losses, 2.5) == pytest.approx(math.sqrt(0.5))
    assert bench_tokens.tokens_to_reach(budgets, losses, 2.0) == pytest.approx(1.0)
    assert bench_tokens.tokens_to_reach(budgets, losses, 1.9) == math.inf
    assert bench_tokens.tokens_to_reach(budgets, losses, 4.5) == 0.25


@pytest.mark.parametrize("recipe", ["guides,step_tokens=128", "muon,step_tokens=128"])
def test_the_loss_of_a_budget_is_the_same_whatever_smaller_ones_are_measured(texts, tmp_path, capsys, recipe):
    data, tokenizer = texts
    argv = ["--scale", "smoke", "--data", data, "--tokenizer", tokenizer, "--seeds", "0", "--recipes", recipe]
    argv += ["--output", str(tmp_path / "result.md")]
    ends = []
    for budgets in (["1"], ["0.5", "1"]):
        kept = tmp_path / f"{len(budgets)}.jsonl"
        bench_tokens.main([*argv, "--budgets", *budgets, "--resume", str(kept)])
        ends.append(json.loads(kept.read_text().splitlines()[0])["result"]["ends"]["1"])
    assert ends[0] == ends[1]


def test_a_budget_that_decays_in_its_warm_up_is_refused(texts, tmp_path):
    data, tokenizer = texts
    argv = ["--scale", "smoke", "--data", data, "--tokenizer", tokenizer, "--seeds", "0", "--budgets", "0.2"]
    argv += ["--recipes", "guides,step_tokens=32,warmup=0.5", "--resume", str(tmp_path / "kept.jsonl")]
    with pytest.raises(UserError, match="a budget of 0.2 is too small: its decay would begin at step"):
        bench_tokens.main([*argv, "--output", str(tmp_path / "result.md")])


def test_a_smoke_run_writes_its_table_and_goes_on(texts, tmp_path, capsys):
    data, tokenizer = texts
    argv = ["--scale", "smoke", "--data", data, "--tokenizer", tokenizer, "--seeds", "0", "1", "--budgets", "0.5", "1"]
    argv += ["--recipes", "guides,step_tokens=128", "muon,step_tokens=128,budgets=0.25/0.5"]
    argv += ["--resume", str(tmp_path / "kept.jsonl"), "--output", str(tmp_path / "result.md")]
    bench_tokens.main(argv)
    table = (tmp_path / "result.md").read_text()
    lines = {line.split(" | ")[1]: line.split(" | ")[2:] for line in table.splitlines() if " | `" in line}
    guides, muon = lines["`guides,step_tokens=128`"], lines["`muon,step_tokens=128,budgets=0.25/0.5`"]
    assert guides[0] == muon[2] == "" and "±" in guides[2] and "±" in muon[0]
    assert guides[3] == "" and muon[3] and float(muon[5]) < 1  # tokens to the loss of the first, and p
    assert "python -m benchmarks.bench_tokens --scale smoke" in table
    assert "](result.png)" in table and (tmp_path / "result.png").stat().st_size > 5000
    capsys.readouterr()
    bench_tokens.main(argv)
    assert "4 of 4 runs are in" in capsys.readouterr().out
