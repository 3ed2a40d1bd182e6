"""Every name of other libraries that the package uses though their documents don't promise it.

`tests/unit/test_borrowed.py` fails when one of them is gone, when a method lost a parameter that is relied on, and when the
package uses such a name that is not listed here. Prefer a public callback, argument or attribute to a line in this table.
"""

import dataclasses

from small_doge.models.cache import CACHE_NAME


@dataclasses.dataclass(frozen=True)
class Borrowed:
    """A name that may change without notice.

    Args:
        owner: the module or class that has it, by its full name.
        name: of the attribute, method or function.
        used_in: files of the package.
        why: there is no public way.
        parameters: of a method, those that the package names or counts on.
    """

    owner: str
    name: str
    used_in: str
    why: str
    parameters: tuple[str, ...] = ()


MODELING = "models/doge/modeling_doge.py"
TRAINER, GRPO, DPO = (
    "transformers.trainer.Trainer",
    "trl.trainer.grpo_trainer.GRPOTrainer",
    "trl.trainer.dpo_trainer.DPOTrainer",
)
MODEL, GENERATION = "transformers.modeling_utils.PreTrainedModel", "transformers.generation.utils.GenerationMixin"
CONTRACT = "how a model class tells transformers about itself; its guide to new models shows it, and has no other way"
HARNESS = "lm_eval.api.model.TemplateLM"
DATATROVE = "its own examples import it, but it is no part of a documented interface"

PRIVATE = (
    # Training.
    Borrowed(
        TRAINER,
        "_run_epoch",
        "trainer/base.py",
        "a run that resumes after its last step must not make another; no callback comes before the first step",
    ),
    Borrowed(
        TRAINER,
        "_issue_warnings_after_load",
        "trainer/base.py",
        "it warns of tied weights, which no checkpoint holds, whenever a run resumes",
        ("load_result",),
    ),
    Borrowed(
        GRPO,
        "_calculate_rewards",
        "trainer/doge/grpo.py",
        "the one place where all rewards of a group are at hand, to count the groups that teach nothing",
        ("inputs", "prompts", "completions", "completion_ids_list"),
    ),
    Borrowed(
        DPO,
        "_prepare_dataset",
        "trainer/doge/dpo.py",
        "it drops pairs without a word, and what follows in the constructor fails when none is left",
        ("dataset", "processing_class", "args", "dataset_name"),
    ),
    # Evaluation.
    Borrowed(
        HARNESS, "_encode_pair", "evaluation/lm.py", "it scores text twice where a boundary falls inside a token"
    ),
    Borrowed(
        HARNESS,
        "_loglikelihood_tokens",
        "evaluation/lm.py",
        "the harness's guide to models names it, and it is abstract",
    ),
    Borrowed(
        "lm_eval.models.huggingface.HFLM",
        "_loglikelihood_tokens",
        "evaluation/controls.py",
        "it cuts long texts, and says so in the log alone; they are counted where they are still whole",
        ("requests",),
    ),
    # Models.
    Borrowed(MODEL, "_init_weights", MODELING, CONTRACT, ("module",)),
    Borrowed(MODEL, "_no_split_modules", MODELING, CONTRACT),
    Borrowed(MODEL, "_skip_keys_device_placement", MODELING, CONTRACT),
    Borrowed(MODEL, "_supports_sdpa", MODELING, CONTRACT),
    Borrowed(MODEL, "_supports_flex_attn", MODELING, CONTRACT),
    Borrowed(MODEL, "_can_record_outputs", MODELING, CONTRACT),
    Borrowed(MODEL, "_tied_weights_keys", MODELING, CONTRACT),
    Borrowed(MODEL, "_tp_plan", MODELING, CONTRACT),
    Borrowed(MODEL, "_pp_plan", MODELING, CONTRACT),
    Borrowed(
        MODEL,
        "_can_set_attn_implementation",
        MODELING,
        "transformers would look for its own interface of attention in the source of the module",
    ),
    Borrowed(
        MODEL,
        "_check_and_adjust_attn_implementation",
        MODELING,
        "names of our own backends are checked, without a search for kernels on the hub",
        ("attn_implementation", "is_init_check", "allow_all_kernels"),
    ),
    Borrowed(
        GENERATION,
        "_prepare_cache_for_generation",
        MODELING,
        "generate makes the cache itself, and a setting chooses among those of transformers alone",
        ("generation_config", "model_kwargs", "generation_mode"),
    ),
    Borrowed(
        "transformers.configuration_utils.PreTrainedConfig",
        "_attn_implementation",
        "models/doge/attention.py",
        "what attn_implementation asked for; the public argument can be given, and not read",
    ),
    Borrowed(
        "transformers.AutoModelForCausalLM",
        "_model_mapping",
        "models/registration.py",
        "register() asks for one configuration class a model; ours serves doge and doge_moe",
    ),
    Borrowed("torch.nn.Module", "_forward_hooks", MODELING, "torch has no way to ask whether a module has hooks"),
    Borrowed("torch.nn.Module", "_forward_pre_hooks", MODELING, "the same"),
    Borrowed(
        "torch.ops.mkldnn",
        "_is_mkldnn_bf16_supported",
        "utils/hardware.py",
        "torch has no public question after a CPU's bfloat16 instructions",
    ),
)

# What the trainers set in their constructors and ours read; public by its name, but in no document.
ATTRIBUTES = (
    *(
        Borrowed(TRAINER, name, "trainer/base.py", "the state of the trainer that stands beside ours among the bases")
        for name in ("args", "model", "state", "control", "optimizer", "lr_scheduler", "accelerator")
    ),
    Borrowed(TRAINER, "is_deepspeed_enabled", "trainer/base.py", "DeepSpeed loads optimizer and rates itself"),
    Borrowed(TRAINER, "callback_handler", "trainer/base.py", "an evaluation of our own still tells the callbacks"),
    Borrowed(TRAINER, "loss_is_scaled_for_ga", "trainer/on_trl.py", "the balance is scaled as TRL scales its loss"),
    Borrowed(TRAINER, "current_gradient_accumulation_steps", "trainer/on_trl.py", "the same"),
    *(
        Borrowed(GRPO, name, "trainer/doge/grpo.py", "rewards of a group, and whether its completions ended")
        for name in ("num_generations", "num_generations_eval", "eos_token_ids", "reward_weights")
    ),
)

# Imported from a module that the library's documents don't name.
IMPORTS = (
    Borrowed("lm_eval.api.model", "TemplateLM", "evaluation/lm.py", "its guide to models tells to subclass it"),
    Borrowed("lm_eval.api", "task", "evaluation/running.py", "its bar for the making of prompts can't be turned off"),
    Borrowed("lm_eval.api.model", "LM", "evaluation/running.py", "what all of its model classes are, for annotations"),
    Borrowed(
        "lm_eval.models.huggingface",
        "HFLM",
        "evaluation/controls.py",
        "its guide to Python wraps models of transformers in it",
    ),
    Borrowed("lm_eval", "tasks", "evaluation/running.py", "its guide to Python takes the task manager from there"),
    Borrowed("lm_eval", "utils", "evaluation/lm.py", "the windows in which its own models score a long text"),
    Borrowed("transformers.activations", "ACT2FN", "models", "activations by name"),
    Borrowed("transformers.generation", "GenerationMode", MODELING, "what _prepare_cache_for_generation is told"),
    Borrowed("transformers", "initialization", MODELING, "skips weights that are loaded, as _init_weights must"),
    Borrowed("transformers.modeling_layers", "GenericForSequenceClassification", MODELING, "a head on any decoder"),
    Borrowed("transformers.modeling_outputs", "MoeCausalLMOutputWithPast", MODELING, "outputs of transformers' Doge"),
    Borrowed("transformers.modeling_outputs", "MoeModelOutputWithPast", MODELING, "the same"),
    Borrowed("transformers.models.doge.modeling_doge", "DogeCDMoE", "models/doge/modeling_doge_moe.py", "its routing"),
    Borrowed("transformers.utils", "can_return_tuple", MODELING, "return_dict=False"),
    Borrowed("transformers.utils", "logging", MODELING, "warnings that are shown once"),
    Borrowed("transformers.utils.generic", "merge_with_config_defaults", MODELING, "use_cache of the configuration"),
    Borrowed("transformers.utils.output_capturing", "OutputRecorder", MODELING, "what _can_record_outputs holds"),
    Borrowed(
        "transformers.utils.output_capturing", "capture_outputs", MODELING, "collects hidden states if asked for"
    ),
    Borrowed("transformers.utils", "get_json_schema", "processor/chat_encoding.py", "tools in a template"),
    Borrowed(
        "transformers.utils.chat_template_utils",
        "render_jinja_template",
        "processor/chat_encoding.py",
        "the text of a conversation with the places of the answers, without its tokens",
        ("conversations", "tools", "chat_template"),
    ),
    Borrowed("datasets", "config", "processor/prepare.py", "where the user keeps cached data sets"),
    Borrowed(
        "datasets.data_files", "DataFilesDict", "processor/sources.py", "which files of a folder make which split"
    ),
    Borrowed("datasets.data_files", "get_data_patterns", "processor/sources.py", "the same", ("base_path",)),
    Borrowed("datasets.fingerprint", "Hasher", "processor/prepare.py", "whether a function is the same as before"),
    Borrowed("datatrove", "data", "processor/clean.py", DATATROVE),
    Borrowed("datatrove", "executor", "processor/scale.py", DATATROVE),
    Borrowed("datatrove", "pipeline", "processor/clean.py, processor/scale.py", DATATROVE),
    Borrowed("datatrove.utils", "hashing", "processor/clean.py", "how its duplicate finders hash words"),
    Borrowed("datatrove.utils", "word_tokenizers", "processor/clean.py", "how its filters split words"),
    Borrowed("huggingface_hub", "constants", "utils/reports.py", "it reads its switch for reports only once"),
)

# Public names whose parameters carry what ours pass on unseen; transformers 5.24 renamed one of them.
CARRIERS = (
    Borrowed(
        GENERATION,
        "prepare_inputs_for_generation",
        MODELING,
        "generate hands the cache to forward under this name, which takes any other one without a word",
        ("input_ids", CACHE_NAME, "attention_mask"),
    ),
)

# Functions of a module that another one is put in the place of while a constructor runs.
REPLACED = tuple(
    Borrowed(
        trainer.rpartition(".")[0],
        "create_model_from_path",
        "trainer/on_trl.py",
        "TRL reads reference models by the class of transformers, and GRPO takes none that is read already",
        ("model_id", "architecture"),
    )
    for trainer in (DPO, GRPO, "trl.trainer.distillation_trainer.DistillationTrainer")
)

BORROWED = (*PRIVATE, *ATTRIBUTES, *IMPORTS, *CARRIERS, *REPLACED)

# Modules of these libraries that their documents name as places to import from.
DOCUMENTED = ("torch", "tokenizers", "onnx", "huggingface_hub.errors")
LIBRARIES = (
    "accelerate",
    "datasets",
    "datatrove",
    "huggingface_hub",
    "lm_eval",
    "onnx",
    "onnxruntime",
    "peft",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)
