"""Tuning: what fits, and which rate, by trying."""

import json
import math
from pathlib import Path

import pytest
import yaml
from tests.unit.trainer.test_planning import SETTINGS

from small_doge.trainer import tuning
from small_doge.trainer.checkpoints import LOG_NAME
from small_doge.trainer.planning import Probe
from small_doge.trainer.tuning import (
    Trial,
    choose_rate,
    plot_batches,
    plot_rates,
    spread_rates,
    tune_batch_size,
    tune_learning_rate,
)
from small_doge.utils.errors import UserError
from small_doge.utils.paths import FINISHED


@pytest.fixture
def recipe(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    path = tmp_path / "pt.yaml"
    settings = {**SETTINGS, "tokenizer_name_or_path": str(tmp_path / "tokenizer"), "test_size": 8}
    path.write_text(yaml.safe_dump(settings))
    return path


def fake_probe(bytes_per_row, seconds_per_row):
    return lambda config, args, rows, length, completion, before: Probe(
        rows, 0.1 + seconds_per_row * rows, 0.0, 100 + bytes_per_row * rows
    )


def test_batches_double_until_memory_ends(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "_free_memory", lambda device: 10_000)
    monkeypatch.setattr(tuning, "run_probe", fake_probe(100, 0.01))
    found = tune_batch_size(recipe, {})
    assert found.largest == 64 and found.measured and [p.rows for p in found.probes] == [1, 2, 4, 8, 16, 32, 64]
    assert found.fastest.rows == 64
    plot_batches(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_memory_that_an_earlier_probe_left_behind_counts(recipe):
    found = tune_batch_size(recipe, {"max_length": 256}, max_rows=8)
    memory = [probe.memory for probe in found.probes]
    assert len(memory) == 4 and memory[-1] >= memory[0]


def test_slow_probes_are_not_run_but_told(recipe, monkeypatch):
    monkeypatch.setattr(tuning, "_free_memory", lambda device: 10_000)
    monkeypatch.setattr(tuning, "run_probe", fake_probe(100, 5.0))
    found = tune_batch_size(recipe, {})
    assert found.largest == 64 and not found.measured and found.probes[-1].rows == 4


def test_a_batch_that_ends_the_memory_is_survived(recipe, monkeypatch):
    def probe(config, args, rows, length, completion, before):
        if rows > 4:
            raise MemoryError
        return Probe(rows, 0.1, 0.0, rows)

    monkeypatch.setattr(tuning, "run_probe", probe)
    found = tune_batch_size(recipe, {}, max_rows=4)
    assert found.largest == 4
    assert tune_batch_size(recipe, {}).probes[-1].rows == 4


def test_not_even_one_row(recipe, monkeypatch):
    monkeypatch.setattr(tuning, "_free_memory", lambda device: 10)
    monkeypatch.setattr(tuning, "run_probe", fake_probe(100, 0.01))
    with pytest.raises(UserError, match="not even 1 rows of max_length=32 fit"):
        tune_batch_size(recipe, {})


def test_batches_of_pairs_are_told_in_rows_of_the_setting(recipe, monkeypatch):
    ran, said = [], []

    def probe(config, args, rows, length, completion, before):
        ran.append(rows)
        return fake_probe(100, 0.01)(config, args, rows, length, completion, before)

    monkeypatch.setattr(tuning, "_free_memory", lambda device: 10_000)
    monkeypatch.setattr(tuning, "run_probe", probe)
    found = tune_batch_size(recipe, {}, stage="dpo", max_rows=8, say=lambda probe, speed: said.append(probe.rows))
    assert ran == [2, 4, 8, 16]
    assert said == [probe.rows for probe in found.probes] == [1, 2, 4, 8]
    assert found.largest == found.fastest.rows == 8
    assert found.tokens_per_second(found.fastest) == pytest.approx(16 * 32 / found.fastest.seconds)
    assert tune_batch_size(recipe, {}, stage="dpo", max_rows=1).largest == 1


def test_rates_have_equal_ratios():
    assert spread_rates(1e-4, 1e-2, 3) == [1e-4, 1e-3, 1e-2]
    for bad in ((1e-2, 1e-4, 3), (0, 1, 3), (1e-4, 1e-2, 1)):
        with pytest.raises(ValueError, match="at least two rates"):
            spread_rates(*bad)


def test_the_best_rate_is_the_lowest_score_and_an_end_of_the_range_is_said():
    trials = [Trial(1e-4, 3.0, []), Trial(1e-3, 2.0, []), Trial(1e-2, math.inf, [])]
    assert choose_rate(trials) == (trials[1], None)
    assert "raise --to" in choose_rate(trials[:2])[1]
    assert "lower --from" in choose_rate(trials[1:])[1]
    with pytest.raises(UserError, match="infinite with every rate"):
        choose_rate(trials[2:])


def test_without_held_out_rows_the_rate_with_the_highest_reward_is_the_best(recipe, tmp_path, monkeypatch):
    def train(stage, config, settings):
        folder = Path(settings["output_dir"])
        reward = {1e-4: 0.2, 1e-3: 0.9, 1e-2: 0.4}[settings["learning_rate"]]
        rows = [{"step": step, "loss": 0.0, "reward": reward} for step in range(10)]
        (folder / LOG_NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / FINISHED).write_text("{}")

    monkeypatch.setattr(tuning, "train_stage", train)
    trials = tune_learning_rate(recipe, {"test_size": 0}, [1e-4, 1e-3, 1e-2], 10, tmp_path / "sweep")
    assert [trial.score for trial in trials] == pytest.approx([-0.2, -0.9, -0.4])
    assert choose_rate(trials)[0].rate == 1e-3 and trials[1].curve[-1] == (9, 0.9)


def test_a_sweep_really_trains_and_keeps_what_is_done(recipe, tmp_path):
    said = []
    rates = [1e-5, 1e-2]
    trials = tune_learning_rate(recipe, {"num_train_epochs": 1}, rates, 8, tmp_path / "sweep", say=said.append)
    assert said == trials and trials[1].score < trials[0].score  # one hardly moves in eight steps
    assert not list((tmp_path / "sweep").glob("*/model.safetensors"))
    assert tune_learning_rate(recipe, {"num_train_epochs": 1}, rates, 8, tmp_path / "sweep") == trials
    with pytest.raises(UserError, match=r"trial with other settings \(weight_decay\)"):
        tune_learning_rate(recipe, {"num_train_epochs": 1, "weight_decay": 0.5}, rates, 8, tmp_path / "sweep")
    plot_rates([*trials, Trial(1.0, math.inf, [])], tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_a_rate_of_muon_needs_a_recipe_with_muon(recipe, tmp_path):
    with pytest.raises(UserError, match="--setting muon_lr needs optim: muon; the recipe has optim: "):
        tune_learning_rate(recipe, {}, [1e-3, 2e-2], 4, tmp_path, setting="muon_lr")


def test_a_recipe_that_logs_nothing_is_tuned(recipe, tmp_path):
    trials = tune_learning_rate(recipe, {"logging_strategy": "no"}, [1e-3, 2e-2], 4, tmp_path)
    assert all(trial.curve for trial in trials)


def test_the_rate_of_muon_is_tried_with_a_recipe_that_keeps_its_stable_checkpoint(recipe, tmp_path):
    overrides = {"optim": "muon", "keep_stable_checkpoint": True, "weight_average": "uniform"}
    trials = tune_learning_rate(recipe, overrides, [1e-3, 2e-2], 4, tmp_path, setting="muon_lr")
    assert [trial.rate for trial in trials] == [1e-3, 2e-2] and trials[0].score != trials[1].score
    assert not list(tmp_path.glob("*/raw_weights"))
