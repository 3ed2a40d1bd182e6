"""An adapter in place of all weights: trained alone, merged at the end, kept beside."""

import pytest
import torch
from safetensors.torch import load_file
from tests.integration.conftest import assert_a_stopped_run_ends_alike
from transformers import AutoModelForCausalLM, AutoTokenizer


LORA = {"lora_r": 4, "lora_alpha": 8}
STAGES = {
    "sft": {"datasets_and_ratios": [{"embedded:chat:200": 1.0}], "packing": True},
    "dpo": {"datasets_and_ratios": [{"embedded:preference:200": 1.0}]},
    "grpo": {
        "datasets_and_ratios": [{"embedded:problem:200": 1.0}],
        "num_generations": 4,
        "max_completion_length": 32,
        "reward_funcs": ["length"],
        "beta": 0.1,
    },
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("lora")


@pytest.fixture
def adapt(train_stage):
    """Run a stage on the base model with an adapter."""

    def call(output, stage="sft", **changes):
        settings = {"total_sample_size": 24, "test_size": 4, "learning_rate": 1e-2, "max_steps": 5}
        return train_stage(stage, output, **settings, **{**STAGES[stage], **LORA, **changes})

    return call


@pytest.mark.parametrize("stage", STAGES)
def test_the_finished_model_is_the_base_with_the_adapter_in_it(shared, adapt, base, stage):
    from peft import PeftModel

    out = shared / stage
    adapt(out, stage)
    merged, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    started = AutoModelForCausalLM.from_pretrained(base)
    changed = {name for name, p in merged.named_parameters() if not torch.equal(p, started.get_parameter(name))}
    assert changed and all(name.split(".")[-2].endswith("_proj") for name in changed)
    adapted = PeftModel.from_pretrained(started, out / "adapter")
    ids = AutoTokenizer.from_pretrained(out)("Ada lives in", return_tensors="pt")["input_ids"]
    torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-4)


def test_raw_weights_beside_an_average_are_a_whole_model(adapt, tmp_path):
    adapt(tmp_path, weight_average="uniform", weight_average_share=0.4)
    raw, report = AutoModelForCausalLM.from_pretrained(tmp_path / "raw_weights", output_loading_info=True)
    finished = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert any(not torch.equal(tensor, finished[name]) for name, tensor in raw.state_dict().items())


def test_checkpoints_hold_the_adapter_alone_and_a_stopped_run_ends_alike(shared, adapt, tmp_path):
    adapt(shared / "sft")  # as the test before did
    names = load_file(shared / "sft" / "checkpoint-4" / "adapter_model.safetensors")
    assert names and all("lora_" in name for name in names)
    assert_a_stopped_run_ends_alike(shared / "sft", adapt, tmp_path / "stopped")


def test_a_layer_that_is_not_there_is_named(adapt, tmp_path):
    done = adapt(tmp_path / "out", lora_target_modules=["q_prof"], check=False)
    assert done.returncode == 1 and "q_prof" in done.stderr and "q_proj" in done.stderr
