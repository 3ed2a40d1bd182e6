"""Settings of a training run. The help of each field is also the command line's and the documents' text."""

import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from transformers import TrainingArguments

from ..processor.formats import DEFAULT_THINKING_TAGS
from ..processor.report import DEFAULT_MAX_BAD_ROWS, DEFAULT_MAX_BAD_SHARE
from ..utils.errors import UserError


@dataclass
class ModelArguments:
    """Which model, and which tokenizer."""

    model_preset: str | None = field(
        default=None, metadata={"help": "A size of the family to start from, such as Doge-20M, with new weights."}
    )
    model_overrides: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Fields of DogeConfig to change in the preset."}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Trained weights to start from, in place of model_preset."}
    )
    continue_from: str | None = field(
        default=None,
        metadata={"help": "A checkpoint of the stable phase to go on from: its weights and its optimizer state."},
    )
    reset_optimizer: bool = field(
        default=False,
        metadata={"help": "Go on from continue_from with a new optimizer, though the weights are trained."},
    )
    tokenizer_name_or_path: str | None = field(
        default=None, metadata={"help": "Tokenizer folder or hub name; that of the model if not set."}
    )


@dataclass
class AdapterArguments(ModelArguments):
    """Which model, and whether all of it is trained or a small adapter of it."""

    lora_r: int = field(
        default=0, metadata={"help": "Rank of a LoRA adapter to train in place of all weights; 0 trains all."}
    )
    lora_alpha: int = field(default=16, metadata={"help": "Scale of the adapter, divided by its rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapter."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        metadata={"help": "Linear layers that get an adapter."},
    )

    def __post_init__(self) -> None:
        if self.lora_r < 0:
            raise UserError(f"lora_r={self.lora_r} must be a rank, or 0 to train all weights")


@dataclass
class DataArguments:
    """Which texts, and how they become rows."""

    datasets_and_ratios: list[dict[str, float]] | None = field(
        default=None, metadata={"help": "Data sets and their shares, a list of one-key entries; the shares sum to 1."}
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "A folder made by mix_datasets_by_ratio and save_to_disk, in place of a mix."}
    )
    total_sample_size: int = field(default=-1, metadata={"help": "Training rows after packing; -1 takes all."})
    test_size: int = field(default=0, metadata={"help": "Rows held out for evaluation."})
    dataset_text_field: str | None = field(default=None, metadata={"help": "Field with the text; text if not set."})
    max_length: int = field(default=2048, metadata={"help": "Tokens of a row."})
    packing: bool | str = field(
        default=True,
        metadata={"help": "true or best_fit: several whole documents a row, none reading another; wrapped; false."},
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Read, tokenise and pack while training, in flat memory, nothing kept on disk."},
    )
    apply_chat_template: bool = field(
        default=False, metadata={"help": "Rows with an answered prompt become chat turns."}
    )
    identity: str | None = field(
        default=None, metadata={"help": "What the model says when asked who it is, put before some chats."}
    )
    dataset_num_proc: int | None = field(
        default=None, metadata={"help": "Processes that tokenise; all cores if not set."}
    )
    max_bad_rows: int = field(
        default=DEFAULT_MAX_BAD_ROWS,
        metadata={"help": "Unusable rows a data set may lose; they are kept in a side file."},
    )
    max_bad_share: float = field(
        default=DEFAULT_MAX_BAD_SHARE,
        metadata={"help": "Share of its rows that a data set of 100 rows or more may lose."},
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Where prepared data are kept; a folder in output_dir if not set."}
    )


@dataclass
class FineTuningDataArguments(DataArguments):
    """Which conversations, and how they become rows."""

    packing: bool | str = field(
        default=False,
        metadata={
            "help": "true or best_fit: several whole conversations a row, none reading another; wrapped; false."
        },
    )
    apply_chat_template: bool = field(
        default=True, metadata={"help": "Must stay on: the trainer takes conversations as tokens."}
    )
    apply_thinking_template: bool = field(
        default=False, metadata={"help": "Put a teacher's thought between thinking_tags, before the answer."}
    )
    thinking_tags: list[str] = field(
        default_factory=lambda: list(DEFAULT_THINKING_TAGS), metadata={"help": "The two tags of a thought."}
    )
    system_prompt: str | None = field(
        default=None, metadata={"help": "Put before conversations that have no system prompt."}
    )
    identity_share: float = field(
        default=0.05, metadata={"help": "Share of the conversations that begin with the identity."}
    )

    def __post_init__(self) -> None:
        if not self.apply_chat_template:
            raise UserError(
                "apply_chat_template=false: this stage trains on conversations as the template renders them"
            )


@dataclass
class StageSettings:
    """What every stage has in place of, or beside, the settings of its library: our defaults and our schedule."""

    output_dir: str | None = field(default=None, metadata={"help": "Folder of the finished model and checkpoints."})
    lr_scheduler_type: str = field(default="warmup_stable_decay", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Warm-up steps, or a share of all steps if below 1."})
    stable_steps: int | None = field(default=None, metadata={"help": "Steps at the peak; what is left if not set."})
    decay_steps: float = field(default=0.1, metadata={"help": "Decay steps, or a share of all steps if below 1."})
    min_lr_ratio: float = field(default=0.0, metadata={"help": "Last learning rate as a share of the peak."})
    decay_type: str = field(default="linear", metadata={"help": "Form of the decay: linear, cosine or 1-sqrt."})
    tokens_per_step: int | None = field(
        default=None,
        metadata={"help": "Tokens of a step over all processes, in place of gradient_accumulation_steps."},
    )
    overwrite: bool = field(default=False, metadata={"help": "Start over in an output_dir that holds a run."})
    seed: int = field(default=233, metadata={"help": "Of weights, data order and dropout."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between two lines of the log."})
    save_steps: float = field(default=500, metadata={"help": "Steps between two checkpoints."})
    save_total_limit: int | None = field(default=3, metadata={"help": "Checkpoints to keep."})
    report_to: str | list[str] | None = field(
        default="tensorboard", metadata={"help": "Where to log: tensorboard, wandb, trackio, none."}
    )
    data_seed: int | None = field(default=None, metadata={"help": "Of the order of rows; seed if not set."})
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16 where weights stay float32."})
    gradient_checkpointing: bool | None = field(
        default=None, metadata={"help": "The older name of activation_checkpointing: less memory for more time."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off: rows carry seq_lengths."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are not finite."})
    adapted: dict[str, Any] = field(default_factory=dict, init=False)  # what the machine made of the settings

    def __post_init__(self) -> None:
        if self.output_dir is None:
            raise UserError("output_dir is missing: name the folder that the model goes to")
        check_settings(self)
        if self.data_seed is None:
            self.data_seed = self.seed
        super().__post_init__()

    def set_accumulation(self, steps: int) -> None:
        """Set the accumulation steps, and what follows from them."""
        self.gradient_accumulation_steps = steps


def check_settings(args: Any) -> None:
    """Refuse settings that can't work, whichever library they are of.

    Raises:
        UserError: with the value and the remedy.
    """
    if args.max_steps == 0 or args.max_steps < -1:
        raise UserError(f"max_steps={args.max_steps} trains nothing; set a number of steps, or -1 to go by epochs")
    if args.max_steps == -1 and args.num_train_epochs <= 0:
        raise UserError(f"num_train_epochs={args.num_train_epochs} trains nothing; set it above 0, or set max_steps")
    if args.remove_unused_columns:
        raise UserError("remove_unused_columns=true would drop what the trainer needs of each row; leave it out")
    least = {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "gradient_accumulation_steps": 1}
    for name, low in least.items():
        if getattr(args, name) < low:
            raise UserError(f"{name}={getattr(args, name)} must be at least {low}")
    for name in ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "decay_steps"):
        value = getattr(args, name)
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise UserError(f"{name}={value} must be a number of at least 0")
    if args.learning_rate == 0:
        raise UserError("learning_rate=0 learns nothing; set it above 0")


@dataclass
class StageArguments(StageSettings, TrainingArguments):
    """`transformers.TrainingArguments` with the defaults of this project and a warmup-stable-decay schedule."""


# Classes of a stage's settings: of the model, the data and the training.
Arguments: TypeAlias = tuple[type, type, type]
PRETRAIN_ARGUMENTS: Arguments = (ModelArguments, DataArguments, StageArguments)
SFT_ARGUMENTS: Arguments = (AdapterArguments, FineTuningDataArguments, StageArguments)
