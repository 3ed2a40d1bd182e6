import dataclasses
import math
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict

from small_doge.models import PRESETS
from small_doge.trainer import recipe as module
from small_doge.trainer.arguments import PRETRAIN_ARGUMENTS, SFT_ARGUMENTS, DataArguments
from small_doge.trainer.doge.dpo import DPO_ARGUMENTS
from small_doge.trainer.doge.grpo import GRPO_ARGUMENTS
from small_doge.trainer.recipe import (
    adapt_to_machine,
    build_arguments,
    known_settings,
    load_arguments,
    parse_command_line,
    read_recipe,
    resolve_settings,
)
from small_doge.trainer.teacher import DISTILLATION_ARGUMENTS
from small_doge.utils.errors import UserError
from small_doge.utils.scheduler import split_steps


ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes" / "doge").rglob("*.yaml")) + [
    path
    for name in ("tiny", "laptop")
    for path in sorted((ROOT / "recipes" / name).glob("*.yaml"))
    if path.stem != "tokenizer"
]
CLASSES = {
    "sft": SFT_ARGUMENTS,
    "dpo": DPO_ARGUMENTS,
    "distill": SFT_ARGUMENTS,
    "grpo": GRPO_ARGUMENTS,
    "teach": DISTILLATION_ARGUMENTS,
}
ENOUGH = {"model_preset": "Doge-20M", "datasets_and_ratios": [{"embedded:world": 1.0}], "output_dir": "x"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(ROOT)))
def test_shipped_recipes_are_taken_by_the_entry_point_they_are_for(path):
    classes = next((CLASSES[name] for name in CLASSES if name in str(path.relative_to(ROOT))), PRETRAIN_ARGUMENTS)
    model, data, args, settings = load_arguments(path, {}, classes)
    assert set(read_recipe(path)) <= set(known_settings(classes))
    assert model.model_preset in (None, *PRESETS)
    assert args.lr_scheduler_type == "warmup_stable_decay" and data.max_length in (128, 256, 512, 1024, 2048, 4096)
    assert args.learning_rate == float(settings["learning_rate"])


@pytest.mark.parametrize(("size", "rate"), [("20M", 8e-4), ("60M", 6e-4), ("160M", 4e-4)])
def test_sft_recipes_have_the_published_numbers(size, rate):
    recipe = f"recipes/doge/Doge-{size}-Instruct/sft/config_full.yaml"
    model, data, args, _ = load_arguments(ROOT / recipe, {}, SFT_ARGUMENTS)
    assert args.num_train_epochs == 2 and data.max_length == 2048 and args.learning_rate == rate
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    assert rows * data.max_length == 2**18 and data.datasets_and_ratios == [{"smoltalk": 1.0}]
    assert model.model_name_or_path == f"SmallDoge/Doge-{size}"


@pytest.mark.parametrize(("size", "rate"), [("20M", 8e-5), ("60M", 6e-5), ("160M", 4e-5)])
def test_dpo_recipes_have_the_published_numbers(size, rate):
    recipe = f"recipes/doge/Doge-{size}-Instruct/dpo/config_full.yaml"
    model, data, args, _ = load_arguments(ROOT / recipe, {}, DPO_ARGUMENTS)
    assert args.num_train_epochs == 2 and data.max_length == 1024 and args.learning_rate == rate
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    assert rows * data.max_length == 2**17 and data.datasets_and_ratios == [{"ultrafeedback_binarized": 1.0}]
    assert model.model_name_or_path == f"SmallDoge/Doge-{size}-Instruct-SFT"


@pytest.mark.parametrize(("size", "rate"), [("20M", 8e-3), ("60M", 6e-3), ("160M", 4e-3), ("320M", 2e-3)])
def test_runs_that_go_on_from_a_stable_checkpoint_keep_the_published_rate_without_a_warm_up(size, rate):
    model, _, args, _ = load_arguments(ROOT / f"recipes/doge/Doge-{size}/continue.yaml", {})
    assert model.continue_from == f"SmallDoge/Doge-{size}-checkpoint"
    assert (args.learning_rate, args.warmup_steps) == (rate, 0)


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_the_older_name_of_the_reasoning_recipes_is_an_alias(stage, messages):
    folder = ROOT / "recipes" / "doge"
    ours = read_recipe(folder / "Doge-20M-Reason" / stage / "config_full.yaml")
    assert read_recipe(folder / "Doge-20M-R1" / stage / "config_full.yaml") == ours
    assert "is called" in messages.text


@pytest.mark.parametrize("word", ["no", "'no'"])
def test_a_plain_no_is_a_strategy_and_not_false(tmp_path, word):
    path = tmp_path / "pt.yaml"
    path.write_text(yaml.safe_dump({**ENOUGH, "use_cpu": True, "report_to": "none"}) + f"eval_strategy: {word}\n")
    _, _, args, _ = load_arguments(path, parse_command_line(["--save_strategy", "no"])[1])
    assert args.eval_strategy == args.save_strategy == "no"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens_per_step": 4096, "gradient_accumulation_steps": 2}, "set one of tokens_per_step and"),
        (
            {"tokens_per_step": 100},
            "is less than one batch of 8 sequences of 2048 tokens on 1 processes, 16384: lower",
        ),
    ],
)
def test_tokens_of_a_step_that_can_not_be_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        build_arguments({**ENOUGH, "use_cpu": True, "report_to": "none", **settings})


def test_tokens_of_a_step_become_accumulation_and_the_sum_is_told(messages):
    settings = {**ENOUGH, "use_cpu": True, "report_to": "none", "per_device_train_batch_size": 4}
    _, _, args = build_arguments({**settings, "tokens_per_step": 100_000})
    assert args.gradient_accumulation_steps == 12
    assert "4 sequences x 2048 tokens x 1 processes x 12 accumulated = 98,304 tokens" in messages.text


def test_conversations_without_the_template_are_refused():
    with pytest.raises(ValueError, match="apply_chat_template=false: this stage trains on conversations"):
        DataArguments(row_format="conversation", apply_chat_template=False)


def test_rows_that_are_prepared_need_no_max_length():
    assert DataArguments(dataset_name="rows", row_format="preference", max_length=None).max_length == 2048


@pytest.mark.parametrize(
    ("size", "rate", "steps", "batch"),
    [("20M", 8e-3, 8000, 256), ("60M", 6e-3, 16000, 512), ("160M", 4e-3, 24000, 768), ("320M", 2e-3, 32000, 1024)],
)
def test_full_recipes_have_the_published_numbers(size, rate, steps, batch):
    _, data, args, _ = load_arguments(ROOT / f"recipes/doge/Doge-{size}/config_full.yaml", {})
    assert (args.learning_rate, args.max_steps, args.weight_decay, data.max_length) == (rate, steps, 0.01, 2048)
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == batch
    assert split_steps(steps, args.warmup_steps, args.decay_steps) == (steps // 10, steps * 8 // 10, steps // 10)
    assert data.total_sample_size == steps * batch


@pytest.mark.parametrize("size", ["20M", "60M", "160M", "320M"])
def test_fast_recipes_are_the_full_ones_with_muon_and_fewer_steps(size):
    full, fast = (read_recipe(ROOT / f"recipes/doge/Doge-{size}/config_{kind}.yaml") for kind in ("full", "fast"))
    assert fast["max_steps"] == 0.6 * full["max_steps"]
    assert fast["total_sample_size"] == 0.6 * full["total_sample_size"]
    assert fast["optim"] == "muon" and fast["output_dir"] != full["output_dir"]
    changed = {name for name in full if fast[name] != full[name]}
    assert changed == {"max_steps", "total_sample_size", "optim", "output_dir", "warmup_steps", "decay_steps"}
    assert set(fast) - set(full) == {"muon_lr", "adam_beta2", "keep_stable_checkpoint"}
    load_arguments(ROOT / f"recipes/doge/Doge-{size}/config_fast.yaml", {})


def test_the_guides_names_are_aliases_with_a_notice(messages):
    settings = resolve_settings(
        {"lr_scheduler_type": "wsd_scheduler", "warmup_ratio": 0.15, "decay_ratio": 0.2, "min_lr_rate": 0.1}
    )
    assert settings == {
        "lr_scheduler_type": "warmup_stable_decay",
        "warmup_steps": 0.15,
        "decay_steps": 0.2,
        "min_lr_ratio": 0.1,
    }
    assert "warmup_ratio is called warmup_steps here" in messages.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lerning_rate": 1}, "unknown setting 'lerning_rate'; did you mean 'learning_rate'"),
        (
            {"model_overrides": {"hiden_size": 3}},
            "unknown field of model_overrides 'hiden_size'; did you mean 'hidden_size'",
        ),
        ({"warmup_ratio": 0.1, "warmup_steps": 3}, "warmup_steps is set twice"),
        ({"learning_rate": "fast"}, "learning_rate='fast' is not a number"),
        ({"learning_rate": True}, "learning_rate=True must be a number"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        resolve_settings(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_preset": None}, "set exactly one of model_preset"),
        ({"dataset_name": "y"}, "set exactly one of datasets_and_ratios"),
        ({"output_dir": None}, "output_dir is missing"),
        ({"report_to": "trackio"}, r"trackio is not installed; run: pip install 'small-doge\[trackers\]'"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        build_arguments({**ENOUGH, "use_cpu": True, **change})


@pytest.fixture
def prepared(tmp_path):
    """A folder of rows of 64 tokens."""
    rows = Dataset.from_list([{"input_ids": list(range(64)), "seq_lengths": [64], "source": "x"}] * 4)
    DatasetDict(train=rows).save_to_disk(str(tmp_path / "rows"))
    return {**ENOUGH, "datasets_and_ratios": None, "dataset_name": str(tmp_path / "rows"), "use_cpu": True}


def test_rows_that_are_prepared_have_their_own_length(prepared, messages):
    settings = {**prepared, "per_device_train_batch_size": 4, "tokens_per_step": 1024, "max_length": 32}
    _, data, args = build_arguments({**settings, "packing": True, "test_size": 0})
    assert data.max_length == 64 and args.gradient_accumulation_steps == 4
    assert "ignored, since dataset_name names rows that are prepared: packing, max_length" in messages.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"streaming": True}, "streaming=true: the rows of dataset_name=.* are prepared"),
        ({"dataset_name": "nowhere"}, "dataset_name=nowhere: there is no such folder"),
        ({"dataset_name": "."}, "dataset_name=. holds no prepared training rows"),
    ],
)
def test_rows_that_are_not_prepared_or_can_not_be_used_are_refused(prepared, change, message):
    with pytest.raises(UserError, match=message):
        build_arguments({**prepared, **change})


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert resolve_settings(yaml.safe_load("learning_rate: 8e-3\nmax_steps: 5"))["learning_rate"] == 8e-3


def test_command_line_takes_the_guides_forms():
    config, settings = parse_command_line(
        [
            "--config",
            "a.yaml",
            "--bf16",
            "True",
            "--learning_rate",
            "4e-3",
            "--max-steps=7",
            "--overwrite",
            "--config_file",
            "acc.yaml",
        ]
    )
    assert config == "a.yaml"
    assert resolve_settings(settings) == {"bf16": True, "learning_rate": 4e-3, "max_steps": 7, "overwrite": True}
    with pytest.raises(ValueError, match="unexpected 'loose'"):
        parse_command_line(["loose"])


def test_the_command_line_wins_over_the_recipe():
    _, _, args, _ = load_arguments(ROOT / "recipes/tiny/pretrain.yaml", {"max_steps": 3, "output_dir": "elsewhere"})
    assert (args.max_steps, args.output_dir) == (3, "elsewhere")


def test_a_missing_recipe_names_those_that_are_there():
    with pytest.raises(ValueError, match="there is no such file; there are .*config_full.yaml"):
        read_recipe(ROOT / "recipes/doge/Doge-20M/config.yaml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_what_the_machine_cannot_do_is_replaced_with_a_notice(monkeypatch, messages):
    monkeypatch.setattr(module, "has_fast_bf16", lambda kind: False)
    asked = {"bf16": True, "tf32": True, "dataloader_num_workers": 999, "optim": "adamw_bnb_8bit"}
    adapted = adapt_to_machine({**asked, "torch_compile": True})
    assert adapted["bf16"] is False and adapted["tf32"] is None and adapted["use_cpu"] is True
    assert adapted["optim"] == "adamw_torch" and adapted["dataloader_num_workers"] < 999
    assert adapted["torch_compile"] is False
    assert messages.text.count("is replaced by") == 5
    monkeypatch.setattr(module, "has_fast_bf16", lambda kind: True)
    assert adapt_to_machine({"bf16": True})["bf16"] is True


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
@pytest.mark.parametrize("setting", [{"optim": "muon"}, {"weight_average": "ema"}])
def test_what_needs_whole_weights_is_refused_under_fsdp_however_it_is_asked_for(monkeypatch, setting):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="under FSDP: it needs whole weights"):
        build_arguments({**ENOUGH, **setting})


@pytest.mark.parametrize(
    ("settings", "ignored"),
    [
        ({"muon_lr": 0.01, "embedding_lr": 1e-3}, {"muon_lr", "embedding_lr"}),
        ({"optim": "muon", "muon_lr": 0.01}, set()),
        ({"weight_average_share": 0.2}, {"weight_average_share"}),
        ({"weight_average": "ema", "weight_average_share": 0.2}, set()),
        ({"weight_average": "uniform", "weight_average_decay": 0.9}, {"weight_average_decay"}),
        ({"lr_scheduler_type": "cosine", "decay_steps": 0.3}, {"decay_steps"}),
        ({"lr_scheduler_kwargs": {"num_decay_steps": 5}}, {"lr_scheduler_kwargs"}),
        ({"optim": "muon", "optim_args": "a=1"}, {"optim_args"}),
        ({"reset_optimizer": True}, {"reset_optimizer"}),
    ],
)
def test_a_setting_that_serves_another_choice_is_named(messages, settings, ignored):
    build_arguments({**ENOUGH, **settings})
    assert {line.split()[0] for line in messages.lines if " is ignored: " in line} == ignored


@pytest.mark.parametrize("second", ["model_name_or_path", "continue_from"])
def test_a_run_starts_from_one_model(second):
    with pytest.raises(UserError, match="set exactly one of model_preset"):
        build_arguments({**ENOUGH, second: "somewhere"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_lr_ratio": 2}, "min_lr_ratio=2 must lie between 0 and 1"),
        ({"stable_steps": -5}, "stable_steps=-5 must be at least 0"),
        ({"decay_type": "expo"}, "decay_type='expo' is unknown"),
        ({"optim": "muon", "muon_cautious_weight_decay": True}, "muon_weight_decay is 0"),
        ({"optim": "muon", "muon_momentum": 0.8, "muon_momentum_warmup_steps": 9}, "muon_momentum is 0.8"),
        ({"optim": "muon", "adam_beta2": 1.0}, "adam_beta2=1.0 must be at least 0 and below 1"),
        ({"max_steps": 4, "stable_steps": 100}, "stable_steps=100 and decay_steps=1 are more than max_steps=4"),
        ({"keep_stable_checkpoint": True, "save_strategy": "no"}, "set it to steps"),
        ({"keep_stable_checkpoint": True, "save_strategy": "best"}, "save_strategy=best writes one only"),
        ({"keep_stable_checkpoint": True, "save_only_model": True}, "save_only_model=true leaves"),
        ({"keep_stable_checkpoint": True, "lr_scheduler_type": "cosine"}, "lr_scheduler_type=cosine does not have"),
    ],
)
def test_a_schedule_or_a_setting_of_muon_that_can_not_work_is_refused_with_its_own_name(settings, message):
    with pytest.raises(UserError, match=message):
        build_arguments({**ENOUGH, **settings})


def test_muon_beside_an_adapter_is_refused_before_any_work():
    with pytest.raises(UserError, match="optim=muon has no matrix to train beside an adapter"):
        build_arguments({**ENOUGH, "optim": "muon", "lora_r": 4}, SFT_ARGUMENTS)


def test_fsdp_on_a_cpu_is_an_error(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP needs GPUs"):
        adapt_to_machine({})


def test_every_setting_of_ours_has_a_help_text():
    own = {name for cls in PRETRAIN_ARGUMENTS for name in cls.__annotations__}
    assert all(known_settings()[name].metadata.get("help") for name in own)
    assert math.isclose(known_settings()["warmup_steps"].default, 0.1)


@pytest.mark.parametrize(
    "words", [["--model_overrides", "{vocab_size: 8192}"], ["--model_overrides.vocab_size", "8192"]]
)
def test_entries_of_a_mapping_on_the_command_line_join_those_of_the_recipe(words, tmp_path):
    path = ROOT / "recipes" / "tiny" / "pretrain.yaml"
    _, overrides = parse_command_line([*words, "--output_dir", str(tmp_path)])
    model, _, _, settings = load_arguments(path, overrides)
    expected = read_recipe(path)["model_overrides"] | {"vocab_size": 8192}
    assert model.model_overrides == settings["model_overrides"] == expected


def test_a_mapping_that_is_none_is_named():
    with pytest.raises(UserError, match="model_overrides=5 must be a mapping"):
        resolve_settings({"model_overrides": 5})
    with pytest.raises(ValueError, match="unknown setting 'model_override.vocab_size'"):
        resolve_settings({"model_override.vocab_size": 5})
    with pytest.raises(UserError, match="model_overrides='a.json' must be a mapping"):
        resolve_settings({"model_overrides": "a.json"})


def test_a_mapping_of_the_library_may_be_a_file():
    files = {"deepspeed": "zero2.json", "fsdp_config": "fsdp.json"}
    assert resolve_settings(files) == files


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "max_steps=0 trains nothing"),
        ({"max_steps": -3}, "max_steps=-3 trains nothing"),
        ({"max_steps": -1, "num_train_epochs": 0}, "num_train_epochs=0 trains nothing"),
        ({"remove_unused_columns": True}, "remove_unused_columns=true would drop"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size=0 must be at least 1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps=0 must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0 learns nothing"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be a number"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 must be a number of at least 0"),
    ],
)
@pytest.mark.parametrize("classes", [PRETRAIN_ARGUMENTS, DPO_ARGUMENTS, GRPO_ARGUMENTS], ids=["pt", "dpo", "grpo"])
def test_settings_that_can_not_work_are_refused_before_the_start(tmp_path, settings, message, classes):
    base = {
        "output_dir": str(tmp_path),
        "model_preset": "Doge-20M",
        "datasets_and_ratios": [{"a": 1.0}],
        "use_cpu": True,
    }
    with pytest.raises(UserError, match=message):
        load_arguments(None, {**base, "report_to": "none", **settings}, classes)


def test_settings_of_an_adapter_without_a_rank_are_refused(tmp_path):
    base = {"output_dir": str(tmp_path), "model_name_or_path": "a", "datasets_and_ratios": [{"a": 1.0}]}
    with pytest.raises(UserError, match="lora_alpha is set, but no adapter is trained: set lora_r"):
        load_arguments(None, {**base, "report_to": "none", "lora_alpha": 32}, SFT_ARGUMENTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_what_was_asked_for_is_kept_apart_from_what_the_machine_made_of_it(tmp_path):
    base = {"output_dir": str(tmp_path), "model_preset": "Doge-20M", "datasets_and_ratios": [{"a": 1.0}]}
    asked = {**base, "report_to": "none", "use_liger_kernel": True, "fp16": True}
    _, _, args, settings = load_arguments(None, asked)
    assert settings["use_liger_kernel"] and settings["fp16"] and "use_cpu" not in settings
    assert args.adapted["use_liger_kernel"] is False and args.adapted["use_cpu"] is True
    assert not args.use_liger_kernel and not args.fp16


def test_whole_numbers_may_be_written_with_an_exponent():
    assert resolve_settings({"max_steps": "1e3"})["max_steps"] == 1000
    with pytest.raises(UserError, match="max_steps='7.5' is not a whole number"):
        resolve_settings({"max_steps": "7.5"})


@pytest.mark.parametrize("classes", [PRETRAIN_ARGUMENTS, *CLASSES.values()])
def test_the_default_of_every_setting_may_be_written_into_a_recipe(classes):
    for name, setting in known_settings(classes).items():
        value = setting.default if setting.default_factory is dataclasses.MISSING else setting.default_factory()
        (resolved,) = resolve_settings({name: value}, classes=classes).values()
        assert resolved == value or (resolved == {} and value is None)  # a mapping that is left empty


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--reward_funcs", "accuracy"], ["accuracy"]),
        (["--reward_funcs", "accuracy, format"], ["accuracy", "format"]),
        (["--reward_funcs", "[accuracy, format]"], ["accuracy", "format"]),
        (["--lora_target_modules", "q_proj"], ["q_proj"]),
        (["--thinking_tags", "<a>,</a>"], ["<a>", "</a>"]),
        (["--reward_weights", "1.0"], [1.0]),
        (["--reward_weights", "1,0.5"], [1.0, 0.5]),
        (["--reward_weights", "[1, 5e-1]"], [1, 0.5]),
        (["--reward_weights", "null"], None),
        (["--report_to", "none"], "none"),
        (["--optim_target_modules", "all-linear"], "all-linear"),
    ],
)
def test_a_list_may_be_written_as_one_value_or_with_commas(words, expected):
    (value,) = resolve_settings(parse_command_line(words)[1], classes=GRPO_ARGUMENTS).values()
    assert value == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_size": 0.1}, "test_size=0.1 is not a whole number"),
        ({"max_length": 64.5}, "max_length=64.5 is not a whole number"),
        ({"per_device_train_batch_size": 2.5}, "per_device_train_batch_size=2.5 is not a whole number"),
        ({"save_total_limit": 1.5}, "save_total_limit=1.5 is not a whole number"),
        ({"max_steps": math.inf}, "max_steps=inf is not a whole number"),
        ({"save_total_limit": True}, "save_total_limit=True must be a number"),
        ({"max_steps": [5]}, r"max_steps=\[5\] must be a number"),
        ({"reward_weights": ["high"]}, "reward_weights='high' is not a number"),
        ({"test_size": None}, "test_size has no value: give it one, or leave it out for the default"),
        ({"total_sample_size": None}, "total_sample_size has no value"),
        ({"bf16": None}, "bf16 has no value"),
        ({"reward_funcs": None}, "reward_funcs has no value"),
        ({"reward_funcs": ["accuracy", None]}, "reward_funcs has no value"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(settings, message):
    with pytest.raises(UserError, match=message):
        resolve_settings(settings, classes=GRPO_ARGUMENTS)


def test_whole_numbers_may_be_written_with_a_fraction_of_zero():
    settings = resolve_settings({"max_steps": 2.0, "save_total_limit": 3.0, "num_train_epochs": 2.5, "tf32": None})
    assert settings == {"max_steps": 2, "save_total_limit": 3, "num_train_epochs": 2.5, "tf32": None}
    assert isinstance(settings["max_steps"], int) and isinstance(settings["save_total_limit"], int)
