"""Values that can't work, or that train nothing, are refused by name before anything is read or computed."""

import pytest
from trl import DPOConfig, GRPOConfig

from small_doge.trainer.arguments import SFT_ARGUMENTS
from small_doge.trainer.doge.dpo import DPO_ARGUMENTS
from small_doge.trainer.doge.grpo import GRPO_ARGUMENTS
from small_doge.trainer.ranges import find_choices
from small_doge.trainer.recipe import load_arguments
from small_doge.trainer.teacher import DISTILLATION_ARGUMENTS
from small_doge.utils.errors import UserError


STAGES = {"sft": SFT_ARGUMENTS, "dpo": DPO_ARGUMENTS, "distill": DISTILLATION_ARGUMENTS, "grpo": GRPO_ARGUMENTS}
GENERATING = ("grpo", "distill")
BAD = [
    *(
        (stage, {"temperature": 0}, "temperature=0 must be a number above 0; leave it out for 1.0")
        for stage in GENERATING
    ),
    *((stage, {"max_completion_length": 0}, "max_completion_length=0 must be at least 1") for stage in GENERATING),
    *((stage, {"top_p": 0}, "top_p=0 must be above 0 and at most 1") for stage in GENERATING),
    ("grpo", {"top_k": -1}, "top_k=-1 must be a number of at least 0"),
    ("grpo", {"min_p": 1.5}, "min_p=1.5 must be a number from 0 to 1"),
    ("grpo", {"repetition_penalty": 0.0}, "repetition_penalty=0.0 must be a number above 0"),
    ("grpo", {"loss_type": "foo"}, "unknown loss_type 'foo'; Known: bnpo, cispo, dapo, dr_grpo, grpo"),
    ("grpo", {"loss_type": "drgrpo"}, "unknown loss_type 'drgrpo'; did you mean 'dr_grpo'"),
    ("grpo", {"importance_sampling_level": "tokens"}, "did you mean 'token'"),
    ("grpo", {"scale_rewards": "groups"}, "did you mean 'group'"),
    ("grpo", {"num_iterations": 0}, "num_iterations=0 must be at least 1"),
    ("grpo", {"generation_batch_size": 0}, "generation_batch_size=0 must be at least 1"),
    ("grpo", {"beta": -1}, "beta=-1 must be a number of at least 0; leave it out for 0.0"),
    ("grpo", {"epsilon": float("nan")}, "epsilon=nan must be a number of at least 0"),
    ("grpo", {"sync_ref_model": True}, "sync_ref_model=true has no reference model to move: set beta above 0"),
    ("distill", {"beta": 2}, "beta=2 must be a number from 0 to 1"),
    ("dpo", {"beta": -1}, "beta=-1 must be a number above 0; leave it out for 0.1"),
    ("dpo", {"beta": 0}, "beta=0 must be a number above 0"),
    ("dpo", {"loss_type": "sigmiod"}, "unknown loss_type 'sigmiod'; did you mean 'sigmoid'"),
    ("dpo", {"loss_type": ["sft", "sigmiod"]}, "unknown loss_type 'sigmiod'; did you mean 'sigmoid'"),
    ("dpo", {"loss_type": "exo_pair"}, "loss_type=exo_pair needs label_smoothing above 0"),
    ("dpo", {"f_divergence_type": "forward"}, "unknown f_divergence_type 'forward'; did you mean 'forward_kl'"),
    ("dpo", {"label_smoothing": 0.7}, "label_smoothing=0.7 must be at least 0 and below 0.5"),
    ("dpo", {"sync_ref_model": True}, "set precompute_ref_log_probs to false"),
    ("dpo", {"router_aux_loss_coef": -1}, "router_aux_loss_coef=-1 must be a number of at least 0; leave it out$"),
    ("sft", {"lora_r": 4, "lora_alpha": 0}, "lora_alpha=0 must be a number above 0; leave it out for 16"),
    ("sft", {"lora_r": 4, "lora_dropout": 2}, "lora_dropout=2 must be at least 0 and below 1"),
    ("sft", {"lora_r": 4, "lora_target_modules": []}, "lora_target_modules is empty"),
    ("sft", {"adam_beta2": 1.0}, "adam_beta2=1.0 must be at least 0 and below 1"),
    ("sft", {"label_smoothing_factor": 2}, "label_smoothing_factor=2 must be at least 0 and below 1"),
    ("sft", {"seed": -1}, "seed=-1 must be a whole number from 0 to 4294967295"),
]
COMMON = {"model_name_or_path": "a", "datasets_and_ratios": [{"a": 1.0}], "use_cpu": True, "report_to": "none"}


@pytest.mark.parametrize(("stage", "settings", "message"), BAD)
def test_a_value_that_can_not_work_is_refused_with_its_range(tmp_path, stage, settings, message):
    with pytest.raises(UserError, match=message):
        load_arguments(None, {**COMMON, "output_dir": str(tmp_path), **settings}, STAGES[stage])


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("grpo", {"loss_type": "cispo", "scale_rewards": "none", "top_k": 0, "min_p": None, "epsilon_high": 5.0}),
        ("dpo", {"loss_type": ["sigmoid", "sft"], "label_smoothing": 0.1, "ld_alpha": 1}),
        ("dpo", {"sync_ref_model": True, "precompute_ref_log_probs": False}),
        ("distill", {"beta": 0}),
    ],
)
def test_values_at_the_ends_of_a_range_are_taken(tmp_path, stage, settings):
    load_arguments(None, {**COMMON, "output_dir": str(tmp_path), **settings}, STAGES[stage])


def test_the_losses_that_trl_knows_are_found_in_its_help():
    assert {"sigmoid", "ipo", "exo_pair", "sigmoid_norm"} <= set(find_choices(DPOConfig, "loss_type"))
    assert {"reverse_kl", "js_divergence"} <= set(find_choices(DPOConfig, "f_divergence_type"))
    assert {"grpo", "dapo", "cispo", "vespo"} <= set(find_choices(GRPOConfig, "loss_type"))
    assert find_choices(GRPOConfig, "beta") == []  # whose help lists nothing
