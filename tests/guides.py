"""What the published guides tell their readers to do, and what we run for it.

The guides are those of https://github.com/SmallDoges/small-doge: its README, the training guide, the step-by-step guides of
`recipes/doge`, the notebook, and the README of the first release.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """Something that a guide says.

    Args:
        guide: readme, training guide, step by step, notebook, or first release.
        says: the command, call, setting or name, shortened.
        runs: the test that does it: a name in `tests/integration/test_guides.py`, or `file::name`; "" if none can.
        differs: why what we run is not what is said; "" where it is.
    """

    guide: str
    says: str
    runs: str
    differs: str = ""


TINY = "a tiny model, a step or two, and embedded texts"
COPIES = "copies of the data sets with the same layout, a few rows each"
SCRIPTS = "tests/integration/test_guides_scripts.py"
RECIPES = "tests/unit/trainer/test_recipe.py"
SCHEDULER = "tests/unit/utils/test_scheduler.py"
EVALUATION = "tests/unit/evaluation/test_eval_scripts.py"
INSTRUCTIONS = [
    # Installation.
    Instruction("readme", "docker pull, docker run", "", "docs/container.md has our images; no engine runs in tests"),
    Instruction("readme", "pip install transformers, datasets, accelerate, trl, -e .", "", "no network in tests"),
    Instruction("first release", "pip install einx", "", "not needed: the experts use plain torch"),
    # Data, script by script.
    *(
        Instruction("step by step", f"python examples/utils/{script}", f"{SCRIPTS}::{test}", COPIES)
        for script, test in {
            "download_pt_datasets.py --save_dir --cache_dir --num_proc": "test_pre_training_data_are_fetched_processed_and_joined",
            "preprocess_pt_datasets.py --train_examples --test_examples --max_length": "test_pre_training_data_are_fetched_processed_and_joined",
            "concatenate_pt_datasets.py": "test_pre_training_data_are_fetched_processed_and_joined",
            "download_ft_datasets.py and download_ft_dataset.py": "test_fine_tuning_data_are_fetched_under_either_name",
            "preprocess_ft_datasets.py": "test_fine_tuning_data_are_processed_and_joined",
            "concatenate_ft_datasets.py": "test_fine_tuning_data_are_processed_and_joined",
            "train_tokenizer_from_old.py": "test_a_tokenizer_is_trained_from_an_old_one",
        }.items()
    ),
    Instruction(
        "step by step",
        "Bespoke-Stratos-17k to distill, NuminaMath-TIR for GRPO",
        f"{SCRIPTS}::test_fine_tuning_data_are_processed_and_joined",
        COPIES,
    ),
    Instruction(
        "training guide",
        "download_pt_datasets.py --cache_dir --num_proc, without --save_dir",
        f"{SCRIPTS}::test_without_a_folder_data_go_where_the_guides_look_for_them",
        COPIES,
    ),
    Instruction(
        "notebook",
        "--tokenizer_name_or_path SamllDoge/Doge-tokenizer",
        "tests/unit/compat/test_names.py::test_the_misspelt_organisation_is_corrected_with_a_notice",
        "misspelt in the guide: the right name is used, with a notice",
    ),
    Instruction(
        "step by step",
        "tokenizer.apply_chat_template(padding='max_length', truncation=True, return_dict=True)",
        "test_a_conversation_is_rendered_padded_and_cut",
    ),
    # Data in one call.
    Instruction("training guide", "pt_datasets_process.mix_datasets_by_radio", "test_texts_are_mixed", COPIES),
    Instruction("training guide", "ft_datasets_process.mix_datasets_by_radio", "test_chats_are_mixed", COPIES),
    Instruction(
        "training guide", "formatting_func=custom_formatting_func", "test_an_identity_is_put_before_chats", COPIES
    ),
    Instruction("training guide", "apply_thinking_template=True", "test_reasoning_is_mixed", COPIES),
    Instruction("training guide", "formatting_func=reasoning_formatting_func", "test_thoughts_are_formatted", COPIES),
    Instruction(
        "training guide",
        "mixed_dataset.save_to_disk('./datasets/pt_dataset')",
        "test_a_saved_mix_is_trained_on",
        "the guide does not say how: a recipe names the folder as dataset_name",
    ),
    # Sizes and experts.
    Instruction("step by step", "n_layers, d_model, d_ff, n_heads, kv_heads", "test_sizes_have_the_guides_numbers"),
    Instruction("step by step", "is_moe, n_experts, n_expert_pre_head", "test_experts_are_set_by_the_guides_names"),
    Instruction(
        "step by step",
        "n_expert_heads",
        "test_experts_have_no_heads",
        "the experts of a layer have one router; the setting is an error that says so",
    ),
    # Hyperparameters.
    Instruction(
        "all",
        "pre-training: steps, accumulation, learning rate, shares of warm-up and decay, weight decay",
        f"{RECIPES}::test_full_recipes_have_the_published_numbers",
    ),
    Instruction(
        "readme",
        "rates and steps to go on from a stable checkpoint",
        f"{RECIPES}::test_runs_that_go_on_from_a_stable_checkpoint_keep_the_published_rate_without_a_warm_up",
        "no warm-up, since the checkpoint has had it",
    ),
    Instruction(
        "readme, training guide",
        "SFT: epochs, context, learning rate, batch",
        f"{RECIPES}::test_sft_recipes_have_the_published_numbers",
    ),
    Instruction(
        "readme, training guide",
        "DPO: epochs, context, learning rate, batch",
        f"{RECIPES}::test_dpo_recipes_have_the_published_numbers",
    ),
    # Training.
    *(
        Instruction(guide, f"accelerate launch {script} {recipe}", "test_a_launch_trains", TINY)
        for guide, script, recipe in (
            ("step by step, notebook", "src/small_doge/pt.py", "Doge-20M"),
            ("step by step, notebook", "src/small_doge/sft.py", "Doge-20M-Instruct/sft"),
            ("step by step, notebook", "src/small_doge/dpo.py", "Doge-20M-Instruct/dpo"),
            ("step by step", "src/small_doge/sft.py", "Doge-20M-R1/sft"),
            ("step by step", "src/small_doge/grpo.py", "Doge-20M-R1/grpo"),
            ("training guide", "src/small_doge/trainer/doge/pt.py", "Doge-20M"),
            ("training guide", "src/small_doge/trainer/doge/sft.py", "Doge-20M-Instruct/sft"),
            ("training guide", "src/small_doge/trainer/doge/dpo.py", "Doge-20M-Instruct/dpo"),
            ("training guide", "src/small_doge/trainer/doge/sft.py", "Doge-20M-Reason/sft"),
            ("training guide", "src/small_doge/trainer/doge/grpo.py", "Doge-20M-Reason/grpo"),
        )
    ),
    Instruction(
        "all",
        "ACCELERATE_LOG_LEVEL=info accelerate launch, --config_file before the script or behind it",
        "test_accelerate_launches_a_script",
        TINY + "; behind the script it is skipped with a notice, since accelerate doesn't see it there",
    ),
    Instruction(
        "training guide",
        "ddp.yaml, deepspeed_zero2.yaml, deepspeed_zero3.yaml",
        "tests/integration/test_distributed.py::test_two_processes_agree_with_one",
        "two processes on a CPU",
    ),
    Instruction(
        "training guide",
        "accelerate launch deepspeed_zero3.yaml pt.py Doge-160M/config_full.yaml",
        "tests/integration/test_distributed.py::test_two_processes_agree_with_one",
        TINY + "; test_full_recipes_have_the_published_numbers reads the recipe",
    ),
    Instruction("training guide", "accelerate config; train.py", "", "interactive, and a script of the reader's own"),
    Instruction(
        "training guide",
        "WSDScheduler(optimizer=..., warmup_steps=800, ..., max_lr=8e-3, min_lr=8e-5)",
        f"{SCHEDULER}::test_the_guides_call_works",
        "a hundredth of the steps",
    ),
    Instruction("training guide", "the settings that save memory", "test_settings_that_save_memory_train", TINY),
    Instruction(
        "training guide", "bf16 and fp16 together", "test_two_precisions_are_refused", "choose one, as it says"
    ),
    Instruction("training guide", "settings of Troubleshooting", "test_settings_of_the_training_guide_are_taken"),
    Instruction(
        "training guide",
        "dataloader_num_workers = min(4, os.cpu_count()), dataloader_pin_memory where there is a GPU",
        "test_settings_of_the_training_guide_are_taken",
        "set by name; workers that a machine has no cores for are lowered with a notice",
    ),
    Instruction(
        "training guide",
        "find_optimal_batch_size",
        "test_batches_are_tried",
        "the guide leaves test_training_step open; small-doge tune batch-size does the same",
    ),
    Instruction("training guide", "OneCycleLR as a learning-rate finder", "test_a_cycle_of_rates_trains"),
    Instruction(
        "training guide",
        "ACCELERATE_LOG_LEVEL=debug, TRANSFORMERS_VERBOSITY=debug",
        "test_libraries_stay_as_talkative_as_they_are_told_to_be",
    ),
    Instruction("training guide", "nvidia-smi, watch -n 1 nvidia-smi", "", "programs of the driver"),
    # Use.
    Instruction(
        "training guide",
        "python -c 'AutoModelForCausalLM.from_pretrained(..., trust_remote_code=True)'",
        "test_a_model_is_loaded_from_the_command_line",
        TINY,
    ),
    Instruction("all", "model.generate(**inputs, max_new_tokens=20)", "test_a_base_model_goes_on_with_a_text", TINY),
    Instruction(
        "all",
        "GenerationConfig, TextStreamer, apply_chat_template, model.generate(inputs, ...)",
        "test_an_answer_is_streamed",
        TINY
        + "; transformers 5 returns a mapping from apply_chat_template, which generate takes once small_doge is imported",
    ),
    Instruction(
        "training guide",
        "bash evaluation/eval_downstream_tasks.sh",
        f"{EVALUATION}::test_the_guides_lines_run_as_they_stand",
    ),
    Instruction(
        "training guide",
        "powershell evaluation/eval_downstream_tasks.ps1",
        f"{EVALUATION}::test_both_scripts_name_the_same_commands_options_and_files",
        "compared with the other script, since no PowerShell runs in tests",
    ),
    Instruction(
        "training guide",
        "export MODEL=..., export OUTPUT_DIR=...; editing both in the script",
        f"{EVALUATION}::test_values_may_be_edited_at_the_top_and_the_programs_lie_on_the_path",
    ),
    Instruction("step by step", "pip install lighteval", "", "no network in tests; make lighteval installs it"),
    Instruction(
        "all",
        "links to files: recipes/doge/README.md, evaluation/README.md, docs/models.md, webui.md, faq.md, installation.md",
        "test_files_that_the_guides_link_to_exist",
    ),
    Instruction("readme", "small-doge-webui", "test_the_page_has_its_command", "tests/unit/webui tests the server"),
    # The first release.
    Instruction("first release", "from model.modules.innerfuncattn import InnerFuncAttn", "test_modules_stand_alone"),
    Instruction("first release", "from model.modules.cdmoe import CDMoE", "test_modules_stand_alone"),
]
