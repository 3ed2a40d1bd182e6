import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from tests.integration.conftest import COMPARABLE, assert_runs_agree
from transformers import AutoModelForCausalLM, AutoTokenizer

from small_doge.trainer.callbacks import read_log


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def losses(folder):
    return {row["step"]: row["loss"] for row in read_log(folder / "training_log.jsonl") if "loss" in row}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def unbroken(shared, train):
    """One run from start to end, made once."""
    if not (shared / "unbroken" / "finished.json").exists():
        train(shared / "unbroken")
    return shared / "unbroken"


def test_a_run_leaves_a_complete_model_folder(unbroken):
    names = {p.name for p in unbroken.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "README.md"} <= names
    assert {"training_log.jsonl", "loss.png", "recipe.yaml", "finished.json"} <= names
    assert not [p for p in unbroken.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert (unbroken / "checkpoint-8" / "recipe.yaml").exists()
    generation = json.loads((unbroken / "generation_config.json").read_text())
    assert len(generation["eos_token_id"]) == 2 and generation["pad_token_id"] not in generation["eos_token_id"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(unbroken), AutoTokenizer.from_pretrained(unbroken)
    out = model.generate(tokenizer("Ada", return_tensors="pt"), max_new_tokens=5, do_sample=False)
    assert out.shape[1] > 2
    curve = losses(unbroken)
    assert sorted(curve) == list(range(1, 11)) and curve[10] < curve[1]
    held_out = [row for row in read_log(unbroken / "training_log.jsonl") if "eval_loss" in row]
    assert held_out[-1]["eval_bits_per_byte"] > 0


def test_whoever_may_read_a_model_may_read_its_weights(unbroken):
    weights = list(unbroken.rglob("*.safetensors"))
    assert {file.parent.name for file in weights} > {unbroken.name}  # those of checkpoints too
    assert {file.stat().st_mode for file in weights} == {(unbroken / "config.json").stat().st_mode}


def test_plain_transformers_loads_and_agrees(unbroken):
    """Within the window: past it, `transformers` ranks near scores by digits that we leave to recency."""
    code = (
        "import torch; from transformers import AutoModelForCausalLM as A; "
        f"m = A.from_pretrained({str(unbroken)!r}); assert 'small_doge' not in type(m).__module__; "
        "torch.save(m(torch.arange(24)[None]).logits.detach(), '/dev/stdout')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    import io

    theirs = torch.load(io.BytesIO(done.stdout))
    ours = AutoModelForCausalLM.from_pretrained(unbroken)(torch.arange(24)[None]).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_finished_run_is_not_run_again(unbroken, train):
    before = (unbroken / "finished.json").stat().st_mtime_ns
    assert "is finished already" in train(unbroken).stderr
    assert (unbroken / "finished.json").stat().st_mtime_ns == before


def test_one_by_eight_equals_eight_by_one(tmp_path, train):
    settings = {**COMPARABLE, "eval_strategy": "no", "test_size": 0}
    train(tmp_path / "wide", per_device_train_batch_size=8, gradient_accumulation_steps=1, **settings)
    train(tmp_path / "deep", per_device_train_batch_size=1, gradient_accumulation_steps=8, **settings)
    assert_runs_agree(tmp_path / "wide", tmp_path / "deep")


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.mark.parametrize("moment", ["checkpoint-4 is being written", "after checkpoint-4"])
def test_killed_and_started_again_it_ends_with_the_same_weights(unbroken, train, tmp_path, workspace, moment):
    out = tmp_path / "killed"
    train(out, max_steps=0, check=False, learning_rate="oops")  # writes the recipe, starts nothing
    import yaml

    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text()) | {"max_steps": 10, "learning_rate": 5e-3}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "small_doge.trainer.doge.pretrain", "--config", str(tmp_path / "recipe.yaml")]
    process = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
    )
    target = out / "checkpoint-4" / ("optimizer.pt" if "being" in moment else "manifest.json")
    wait_for(target.exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "finished.json").exists()
    done = train(out)
    if "after" in moment:
        assert "going on from" in done.stderr
    assert "tokenising" not in done.stderr and "packed" not in done.stderr
    assert_same(weights(out), weights(unbroken))
    assert losses(out) == losses(unbroken)


def test_a_torn_checkpoint_is_passed_over(unbroken, train, tmp_path):
    import shutil

    out = tmp_path / "torn"
    shutil.copytree(unbroken, out)
    (out / "finished.json").unlink()
    shutil.rmtree(out / "checkpoint-10", ignore_errors=True)
    last = out / "checkpoint-8" / "optimizer.pt"
    last.write_bytes(last.read_bytes()[:-100])
    done = train(out)
    assert "passing over" in done.stderr and "optimizer.pt has" in done.stderr and "checkpoint-4" in done.stderr
    assert_same(weights(out), weights(unbroken))


def test_going_on_from_a_stable_checkpoint_with_new_data_has_no_jump(unbroken, train, tmp_path):
    done = train(
        tmp_path / "on",
        model_preset=None,
        model_overrides={},
        continue_from=str(unbroken / "checkpoint-4"),
        tokenizer_name_or_path=None,
        datasets_and_ratios=[{"embedded:textbook:200": 1.0}],
        warmup_steps=0,
        stable_steps=3,
        decay_steps=3,
        max_steps=6,
    )
    assert "the learning rate changes" not in done.stderr
    rows = [row for row in read_log(tmp_path / "on" / "training_log.jsonl") if "loss" in row]
    assert [row["learning_rate"] for row in rows[:3]] == [5e-3] * 3
    assert rows[-1]["learning_rate"] < 5e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_step": 3}, "unknown setting 'max_step'; did you mean 'max_steps'"),
        ({"datasets_and_ratios": [{"embedded:world:300": 0.5}]}, "the ratios sum to 0.5, not 1"),
        ({"test_size": 0}, "eval_strategy=steps needs held-out rows: set test_size"),
        ({"tokenizer_name_or_path": "nowhere"}, "tokenizer_name_or_path=nowhere: no tokenizer could be loaded"),
        (
            {"model_overrides": {"vocab_size": 300}},
            "the tokenizer has 512 entries, and the vocab_size of the new model is 300",
        ),
        ({"stable_steps": 100}, "are more than max_steps=10"),
    ],
)
def test_bad_recipes_end_with_one_message_and_no_traceback(train, tmp_path, changes, message):
    done = train(tmp_path / "bad", check=False, **changes)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_full_disk_and_full_memory_are_told_with_the_remedy(monkeypatch):
    from types import SimpleNamespace

    from small_doge.trainer import runner
    from small_doge.utils.errors import UserError

    args = SimpleNamespace(output_dir="/nowhere", per_device_train_batch_size=8, gradient_accumulation_steps=2)

    def trainer(error):
        def train(**_):
            raise error

        return SimpleNamespace(train=train, args=args)

    for error, message in [
        (OSError(28, "No space left on device"), "is full. Free some space and run the same command"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "is full"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
            "per_device_train_batch_size=8: halve it",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), "activation_checkpointing"),
        (KeyboardInterrupt(), "the same command goes on from"),
    ]:
        with pytest.raises(UserError, match=message):
            runner._train(trainer(error), None)
    with pytest.raises(RuntimeError, match="something else"):
        runner._train(trainer(RuntimeError("something else")), None)


def test_a_disk_too_small_is_told_before_training_starts(monkeypatch, tmp_path):
    from types import SimpleNamespace

    from tests.conftest import build_tiny

    from small_doge.trainer import starting
    from small_doge.utils.errors import UserError

    monkeypatch.setattr(starting.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    saving = {"save_strategy": "steps", "should_save": True, "save_total_limit": 3, "keep_stable_checkpoint": False}
    args = SimpleNamespace(**saving, weight_average="none", optim="adamw_torch")
    with pytest.raises(UserError, match="its checkpoints need .* lower save_total_limit"):
        starting.check_disk(tmp_path, build_tiny(), args)
