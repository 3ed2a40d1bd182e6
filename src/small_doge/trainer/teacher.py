"""Distillation from a live teacher, on the student's own completions, on TRL's trainer."""

from dataclasses import dataclass, field

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl import DistillationConfig, DistillationTrainer

from ..utils.errors import UserError
from ..utils.model_folder import check_model_folder
from ..utils.vocabulary import check_tokenizer_fits
from .arguments import AdapterArguments, Arguments, DataArguments, StageSettings
from .on_trl import DogeOnTRL
from .ranges import GENERATION, SHARE, check_ranges


SHOWN = 3


@dataclass
class DistillationArguments(StageSettings, DistillationConfig):
    """`trl.DistillationConfig` with the defaults of this project."""

    teacher_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Teacher: a causal language model of transformers that has the student's tokenizer."},
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    max_completion_length: int = field(default=256, metadata={"help": "Maximum number of tokens in a completion."})
    disable_dropout: bool = field(
        default=True, metadata={"help": "Turn off dropout, so that completions are those of the model."}
    )

    def __post_init__(self) -> None:
        check_ranges(self, {**GENERATION, "beta": SHARE})
        super().__post_init__()


DISTILLATION_ARGUMENTS: Arguments = (AdapterArguments, DataArguments, DistillationArguments)


class DogeDistillationTrainer(DogeOnTRL, DistillationTrainer):
    """`trl.DistillationTrainer` with the promises of this project."""


def load_teacher(
    args: DistillationArguments, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Load the teacher, and make sure that its tokens mean what the student's mean.

    Raises:
        ValueError: there is no such model, or its tokens are others.
    """
    name = args.teacher_model_name_or_path
    try:
        check_model_folder(name)
        theirs = AutoTokenizer.from_pretrained(name, trust_remote_code=args.trust_remote_code)
        teacher = AutoModelForCausalLM.from_pretrained(
            name, dtype=torch.float32, trust_remote_code=args.trust_remote_code, use_safetensors=True
        )
    except UserError as error:
        raise UserError(f"teacher_model_name_or_path: {error}") from error
    except OSError as error:
        raise UserError(
            f"teacher_model_name_or_path={name}: no model with a tokenizer there ({str(error).splitlines()[0]})"
        ) from error
    except ValueError as error:
        raise UserError(
            f"teacher_model_name_or_path={name}: name a causal language model of transformers, or set trust_remote_code "
            f"to true for one with code of its own ({str(error).splitlines()[0]})"
        ) from error
    check_same_tokens(name, tokenizer, theirs)
    sizes = student.config.vocab_size, teacher.config.get_text_config().vocab_size
    if sizes[0] != sizes[1]:
        raise UserError(
            f"teacher_model_name_or_path={name}: its vocab_size is {sizes[1]}, the student's {sizes[0]}; their "
            "distributions can't be compared"
        )
    check_tokenizer_fits(theirs, teacher.config.get_text_config(), f"the teacher {name}", teacher.generation_config)
    return teacher.eval()


def check_same_tokens(name: str, ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> None:
    """Raise a `ValueError` that names tokens whose ids differ: the losses would compare unrelated tokens."""
    mine, other = ours.get_vocab(), theirs.get_vocab()
    wrong = [token for token in sorted(mine, key=mine.__getitem__) if mine[token] != other.get(token)]
    if wrong or len(mine) != len(other):
        shown = ", ".join(f"{token!r} is {mine[token]} here and {other.get(token)} there" for token in wrong[:SHOWN])
        raise UserError(
            f"teacher_model_name_or_path={name}: its tokenizer is not the student's ({len(wrong)} of {len(mine)} tokens "
            f"differ{': ' + shown if shown else ''}). Distil on the teacher's texts instead, with small-doge train distill "
            "without a live teacher"
        )
