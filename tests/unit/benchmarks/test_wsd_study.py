"""The study of warmup-stable-decay: its schedules, what its arms share, and what it calls a spike."""

import argparse

import pytest
import torch
from benchmarks.studies import wsd

from small_doge.utils.errors import UserError


@pytest.fixture
def study(texts):
    data, tokenizer = texts
    files = {"data": [data], "new_data": [data], "tokenizer": tokenizer}
    arguments = argparse.Namespace(scale="smoke", device="cpu", steps=None, **files)
    return wsd.WarmupStableDecay(arguments)


@pytest.fixture
def trained_parts(study, monkeypatch):
    """What was trained: the rates of each part and its first batch."""
    parts = []

    def record(model, batches, steps, lr, *, schedule, optimizer, **options):
        rows = [next(batches)["input_ids"].tolist() for _ in range(steps)]
        parts.append({"rates": [schedule(step) for step in range(steps)], "rows": rows, "optimizer": optimizer})
        return [{"step": steps, "loss": 1.0, "first data": 1.0, "new data": 1.0}]

    monkeypatch.setattr(wsd, "train", record)
    return parts


def test_a_decay_goes_on_from_the_stable_phase_with_the_rows_that_follow(study, trained_parts):
    study.run({"arm": "decay 30%", "seed": 0})
    stable, decay = trained_parts[:-1], trained_parts[-1]
    assert [len(part["rates"]) for part in stable] == [8, 6, 4, 2]  # to 40, 70, 90 and 100% of 20 steps
    assert [rate for part in stable for rate in part["rates"]] == [1.0] * 20
    assert decay["rates"] == pytest.approx([1 - step / 6 for step in range(6)])
    assert decay["rows"] == [row for part in stable for row in part["rows"]][14:]


def test_arms_of_a_seed_share_the_stable_phase_and_another_seed_has_its_own(study, trained_parts):
    for seed, parts in ((0, 5), (0, 6), (1, 11)):
        study.run({"arm": "decay 10%" if parts == 5 else "decay 60%", "seed": seed})
        assert len(trained_parts) == parts


def test_what_one_arm_trains_leaves_the_optimizer_of_the_others(study):
    def read_state(run):
        return [value.clone() for kept in run.optimizer.state.values() for value in kept.values()]

    copies = study.train_stable(0)
    before = {name: read_state(run) for name, run in copies.items()}
    study.run({"arm": "decay 10%", "seed": 0})
    study.run({"arm": "go on from stable", "seed": 0})
    for name, run in copies.items():
        assert all(torch.equal(x, y) for x, y in zip(read_state(run), before[name], strict=True)), name


def test_cosine_falls_over_all_steps_and_from_scratch_over_both_data(study, trained_parts):
    study.run({"arm": "cosine", "seed": 0})
    study.run({"arm": "from scratch, first then new", "seed": 0})
    study.run({"arm": "from scratch, both mixed", "seed": 0})
    assert [len(part["rates"]) for part in trained_parts] == [20, 32, 32]
    assert trained_parts[1]["rates"][15] > 0.5 > trained_parts[0]["rates"][15]
    in_order, mixed = trained_parts[1]["rows"], trained_parts[2]["rows"]
    assert in_order != mixed and sorted(in_order) == sorted(mixed)


def test_going_on_keeps_rate_and_optimizer_unless_it_has_the_weights_alone(study, trained_parts):
    states = {}
    for arm in wsd.NEW_ARMS[:3]:
        source = study.train_cosine(0)[0] if "cosine" in arm else study.train_stable(0)["stable"]
        for parameter in source.model.parameters():
            source.optimizer.state[parameter] = {"step": torch.tensor(7.0)}
        study.run({"arm": arm, "seed": 0})
        states[arm] = trained_parts[-1]
    kept, alone, cosine = (states[arm] for arm in wsd.NEW_ARMS[:3])
    assert kept["optimizer"].state and cosine["optimizer"].state and not alone["optimizer"].state
    assert kept["rates"] == alone["rates"] == [1.0] * 7 + [0.5]


def test_too_few_steps_for_a_decay_are_refused(texts):
    with pytest.raises(UserError, match="--steps 9: the study needs 20 at least"):
        wsd.WarmupStableDecay(argparse.Namespace(scale="smoke", steps=9))


def test_a_rise_is_the_largest_above_the_loss_before():
    points = [{"new data": 2.5}, {"new data": 3.5}, {"new data": 3.25}]
    assert wsd._largest_rise({"new data": 3.0}, points, "new data") == 0.5
    assert wsd._largest_rise({"new data": 4.0}, points, "new data") == 0.0


def test_a_smallest_study_runs_and_does_not_run_again(texts, tmp_path, monkeypatch):
    data, tokenizer = texts
    files = ["--output", str(tmp_path / "out.md"), "--resume", str(tmp_path / "runs.jsonl")]
    command = [
        "--scale",
        "smoke",
        "--seeds",
        "3",
        "--data",
        data,
        "--new-data",
        data,
        "--tokenizer",
        tokenizer,
        *files,
    ]
    wsd.main(command)
    text = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert (tmp_path / "out.png").exists() and "nan" not in text
    assert all(f"| {arm} |" in text for arm in (*wsd.DECAY_ARMS, *wsd.NEW_ARMS))
    monkeypatch.setattr(wsd, "train", None)
    wsd.main(command)
    assert (tmp_path / "out.md").read_text(encoding="utf-8") == text
