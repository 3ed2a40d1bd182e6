"""Settings of a training run. The help of each field is also the command line's and the documents' text."""

import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from transformers import TrainingArguments

from ..optim import FIRST_MOMENTUM
from ..processor.data_config import DataConfig
from ..utils.errors import UserError
from ..utils.scheduler import check_decay_type, split_steps
from .averaging import check_average
from .ranges import BELOW_ONE, COUNT, NOT_NEGATIVE, POSITIVE, SEED, check_ranges


MUON = "muon"  # value of `optim` that the library does not have
PROMPT_TOKENS = 128  # of an unknown prompt, beside its completion

# Of every stage.
RANGES = {
    **dict.fromkeys(
        ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"), COUNT
    ),
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "decay_steps"), NOT_NEGATIVE),
    **dict.fromkeys(("adam_epsilon", "neftune_noise_alpha", "dataloader_num_workers"), NOT_NEGATIVE),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), BELOW_ONE),
    **dict.fromkeys(("seed", "data_seed"), SEED),
}
# With `optim: muon`.
MUON_RANGES = {
    **dict.fromkeys(("muon_lr", "embedding_lr"), POSITIVE),
    **dict.fromkeys(("muon_weight_decay", "muon_momentum_warmup_steps"), NOT_NEGATIVE),
    "muon_momentum": BELOW_ONE,
}

# Settings that only a model with fresh weights takes.
NEW_MODEL_SETTINGS = (
    "model_preset",
    "model_overrides",
    "init_zero_outputs",
    "init_embedding_std",
    "init_query_key_gain",
)


@dataclass
class ModelArguments:
    """Which model, and which tokenizer."""

    model_preset: str | None = field(
        default=None, metadata={"help": "Size of a new model with fresh weights, such as Doge-20M."}
    )
    model_overrides: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Fields of DogeConfig to change in the preset."}
    )
    init_zero_outputs: bool = field(
        default=False,
        metadata={"help": "Start the last product of each attention and feed-forward layer of a new model at zero."},
    )
    init_embedding_std: float | None = field(
        default=None, metadata={"help": "Standard deviation of a new model's embedding; 0.02 if not set."}
    )
    init_query_key_gain: float | None = field(
        default=None, metadata={"help": "First weight of the norms of queries and keys of a new model; 1 if not set."}
    )
    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Trained model to start from: a folder or a hub name, instead of model_preset."},
    )
    continue_from: str | None = field(
        default=None,
        metadata={"help": "Checkpoint of the stable phase to continue from, with its weights and optimizer state."},
    )
    reset_optimizer: bool = field(
        default=False,
        metadata={"help": "Start a new optimizer when continuing from continue_from."},
    )
    tokenizer_name_or_path: str | None = field(
        default=None, metadata={"help": "Folder or hub name of the tokenizer; the model's own tokenizer if not set."}
    )


@dataclass
class AdapterArguments(ModelArguments):
    """Which model, and whether all of it is trained or a small adapter of it."""

    lora_r: int = field(
        default=0, metadata={"help": "Rank of a LoRA adapter to train instead of all weights; 0 trains all weights."}
    )
    lora_alpha: int = field(default=16, metadata={"help": "Scale of the LoRA adapter, which is divided by its rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout probability before the LoRA adapter."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        metadata={"help": "Linear layers that get a LoRA adapter."},
    )

    def __post_init__(self) -> None:
        if self.lora_r < 0:
            raise UserError(f"lora_r={self.lora_r} must be a rank, or 0 to train all weights")
        check_ranges(self, {"lora_alpha": POSITIVE, "lora_dropout": BELOW_ONE})
        if self.lora_r and not self.lora_target_modules:
            raise UserError("lora_target_modules is empty, so that nothing is trained: name layers, or leave it out")


@dataclass
class DataArguments(DataConfig):
    """Which data a run trains on: a mix to make, or a folder of rows that were prepared before."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Folder made by small-doge data prepare, instead of datasets_and_ratios."}
    )

    def __post_init__(self) -> None:
        if self.max_length is None and self.dataset_name is not None:  # the rows have their length already
            self.max_length = DataConfig.max_length
        super().__post_init__()
        if self.row_format != "text" and not self.apply_chat_template:
            raise UserError(
                "apply_chat_template=false: this stage trains on conversations as the template renders them"
            )


@dataclass
class StageSettings:
    """What every stage has in place of, or beside, the settings of its library: our defaults and our schedule."""

    # Sequences that the model reads for each row.
    sequences_per_row: ClassVar[int] = 1

    output_dir: str | None = field(default=None, metadata={"help": "Folder for checkpoints and the finished model."})
    lr_scheduler_type: str = field(default="warmup_stable_decay", metadata={"help": "Learning rate schedule."})
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Number of warm-up steps, or their share of all steps if below 1."}
    )
    stable_steps: int | None = field(
        default=None, metadata={"help": "Number of steps at the peak learning rate; all remaining steps if not set."}
    )
    decay_steps: float = field(
        default=0.1, metadata={"help": "Number of decay steps, or their share of all steps if below 1."}
    )
    min_lr_ratio: float = field(default=0.0, metadata={"help": "Final learning rate as a share of the peak."})
    decay_type: str = field(default="linear", metadata={"help": "Shape of the decay: linear, cosine or 1-sqrt."})
    muon_lr: float = field(
        default=0.01, metadata={"help": "Peak learning rate of the matrices that Muon trains, with optim: muon."}
    )
    muon_momentum: float = field(default=0.95, metadata={"help": "Momentum of Muon."})
    muon_momentum_warmup_steps: int = field(
        default=0, metadata={"help": "Number of steps over which Muon's momentum rises from 0.85."}
    )
    muon_weight_decay: float = field(
        default=0.0,
        metadata={"help": "Weight decay of the matrices that Muon trains, which weight_decay does not apply to."},
    )
    muon_cautious_weight_decay: bool = field(
        default=False, metadata={"help": "Decay a weight that Muon trains only where its update shrinks it too."}
    )
    embedding_lr: float | None = field(
        default=None,
        metadata={
            "help": "Peak learning rate of the embedding and the head, with optim: muon; learning_rate if not set."
        },
    )
    tokens_per_step: int | None = field(
        default=None,
        metadata={
            "help": "Number of tokens per step over all processes, with both answers of a pair; sets gradient_accumulation_steps."
        },
    )
    overwrite: bool = field(default=False, metadata={"help": "Discard the run that output_dir holds and start over."})
    seed: int = field(default=233, metadata={"help": "Seed of new weights, of the order of the data and of dropout."})
    logging_steps: float = field(default=10, metadata={"help": "Number of steps between two log lines."})
    save_steps: float = field(default=500, metadata={"help": "Number of steps between two checkpoints."})
    save_total_limit: int | None = field(default=3, metadata={"help": "Number of checkpoints to keep."})
    weight_average: str = field(
        default="none",
        metadata={"help": "Average of the last weights that becomes the finished model: none, ema or uniform."},
    )
    weight_average_share: float = field(
        default=0.1, metadata={"help": "Share of all steps, at the end, whose weights are averaged."}
    )
    weight_average_decay: float = field(
        default=0.99, metadata={"help": "Share of itself that an exponential average (ema) keeps at each step."}
    )
    keep_stable_checkpoint: bool = field(
        default=False,
        metadata={
            "help": "Save a checkpoint where the decay begins, and keep it, so that other runs can go on from it."
        },
    )
    report_to: str | list[str] | None = field(
        default="tensorboard", metadata={"help": "Experiment tracker: tensorboard, wandb, trackio or none."}
    )
    data_seed: int | None = field(
        default=None, metadata={"help": "Seed of the order of rows; the value of seed if not set."}
    )
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16 while weights stay in float32."})
    gradient_checkpointing: bool | None = field(
        default=None, metadata={"help": "Older name of activation_checkpointing, which trades time for memory."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay off, because rows carry seq_lengths."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Hide losses that are not finite from the log."}
    )
    adapted: dict[str, Any] = field(default_factory=dict, init=False)  # what the machine made of the settings

    def __post_init__(self) -> None:
        if self.output_dir is None:
            raise UserError("output_dir is missing: name the folder that the model goes to")
        check_settings(self)
        if self.data_seed is None:
            self.data_seed = self.seed
        trains_by_muon = self.optim == MUON
        if trains_by_muon:  # the library knows its own names only
            self.optim = "adamw_torch"
        super().__post_init__()
        if trains_by_muon:
            self.optim = MUON
            check_muon(self)
        if self.weight_average != "none":
            check_whole_weights(self, f"weight_average={self.weight_average}", "set weight_average to none")

    def set_accumulation(self, steps: int) -> None:
        """Set the accumulation steps, and what follows from them."""
        self.gradient_accumulation_steps = steps

    @property
    def completion_length(self) -> int:
        """Number of tokens that are generated for each row at most, 0 in stages that generate none."""
        return getattr(self, "max_completion_length", None) or 0

    def compute_row_length(self, max_length: int) -> int:
        """Return the number of tokens of a sequence that fills its row: as the data have, or a short prompt and a completion."""
        completion = self.completion_length
        return min(max_length, PROMPT_TOKENS) + completion if completion else max_length


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
    check_ranges(args, RANGES)
    if not 0 <= args.min_lr_ratio <= 1:
        raise UserError(f"min_lr_ratio={args.min_lr_ratio} must lie between 0 and 1: it is a share of the peak rate")
    if args.stable_steps is not None and args.stable_steps < 0:
        raise UserError(f"stable_steps={args.stable_steps} must be at least 0; leave it out for all remaining steps")
    check_decay_type(args.decay_type)
    check_average(args)
    if args.keep_stable_checkpoint and args.save_strategy == "no":
        raise UserError("keep_stable_checkpoint=true needs checkpoints, and save_strategy is no: set it to steps")
    if args.keep_stable_checkpoint and args.lr_scheduler_type != "warmup_stable_decay":
        raise UserError(
            f"keep_stable_checkpoint=true needs a stable phase, which lr_scheduler_type={args.lr_scheduler_type} does not have"
        )
    if args.keep_stable_checkpoint and args.save_strategy == "best":
        raise UserError(
            "keep_stable_checkpoint=true needs a checkpoint where the decay begins, and save_strategy=best writes one only "
            "after a better evaluation: set save_strategy to steps"
        )
    if args.keep_stable_checkpoint and args.save_only_model:
        raise UserError(
            "keep_stable_checkpoint=true keeps what other runs go on from, and save_only_model=true leaves the optimizer's "
            "state out: leave one of them out"
        )
    if args.max_steps > 0 and args.lr_scheduler_type == "warmup_stable_decay":
        split_steps(args.max_steps, args.warmup_steps, args.decay_steps, args.stable_steps)
    if args.learning_rate == 0:
        raise UserError("learning_rate=0 learns nothing; set it above 0")


def is_launched_with_fsdp() -> bool:
    """Tell whether `accelerate launch` asked for FSDP, which it does by the environment alone."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def check_whole_weights(args: Any, setting: str, remedy: str) -> None:
    """Raise a `UserError` where each process holds a part of every weight, which a setting can't work with."""
    fsdp = args.fsdp_plugin_args or is_launched_with_fsdp()
    sharding = "DeepSpeed" if args.deepspeed_plugin is not None else "FSDP" if fsdp else None
    if sharding is not None:
        raise UserError(
            f"{setting} under {sharding}: it needs whole weights, but each process holds only a part of each. Use DDP "
            f"(recipes/accelerate_configs/ddp.yaml), or {remedy}"
        )


def check_muon(args: Any) -> None:
    """Refuse Muon where weights are split among processes, and values that it can't work with.

    Raises:
        UserError: with the value and the remedy.
    """
    check_whole_weights(args, "optim=muon", "set optim to adamw_torch_fused")
    check_ranges(args, MUON_RANGES)
    if args.muon_momentum_warmup_steps and args.muon_momentum <= FIRST_MOMENTUM:
        raise UserError(
            f"muon_momentum_warmup_steps={args.muon_momentum_warmup_steps} has no effect: the momentum rises from "
            f"{FIRST_MOMENTUM}, and muon_momentum is {args.muon_momentum}; leave one of them out"
        )
    if args.muon_cautious_weight_decay and args.muon_weight_decay == 0:
        raise UserError("muon_cautious_weight_decay=true has no effect: muon_weight_decay is 0; set it above 0")


@dataclass
class StageArguments(StageSettings, TrainingArguments):
    """`transformers.TrainingArguments` with the defaults of this project and a warmup-stable-decay schedule."""


# Classes of a stage's settings: of the model, the data and the training.
Arguments: TypeAlias = tuple[type, type, type]
PRETRAIN_ARGUMENTS: Arguments = (ModelArguments, DataArguments, StageArguments)
SFT_ARGUMENTS: Arguments = (AdapterArguments, DataArguments, StageArguments)
