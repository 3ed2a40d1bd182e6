"""Group relative policy optimisation on TRL's trainer, with rewards that verify: `grpo.py --config RECIPE.yaml`."""

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig, GRPOTrainer

import small_doge  # noqa: F401 (registers Doge)
from small_doge.trainer.arguments import AdapterArguments, Arguments, DataArguments, StageSettings
from small_doge.trainer.callbacks import JUDGED_SHARE
from small_doge.trainer.doge.script import run_script
from small_doge.trainer.on_trl import DogeOnTRL
from small_doge.trainer.ranges import (
    COUNT,
    GENERATION,
    NOT_NEGATIVE,
    POSITIVE,
    REFERENCE,
    SHARE,
    check_choices,
    check_ranges,
    find_choices,
)
from small_doge.trainer.rewards import REWARDS, check_rewards, make_rewards
from small_doge.trainer.setup import TrainingSetup
from small_doge.utils.answers import find_fault
from small_doge.utils.errors import UserError
from small_doge.utils.logging import get_logger


logger = get_logger(__name__)

ZERO_VARIANCE, CUT_OFF = "groups/equal_rewards", "groups/cut_off"
# Rewards that differ by less are the same.
EQUAL = 1e-6
# Groups before a run that can't learn is told so while it goes.
EARLY_GROUPS = 40

COUNTS = ("num_iterations", "num_generations_eval", "steps_per_generation", "generation_batch_size")
RANGES = {
    **GENERATION,
    **REFERENCE,
    **dict.fromkeys(COUNTS, COUNT),
    **dict.fromkeys(("beta", "epsilon", "epsilon_high"), NOT_NEGATIVE),
    **dict.fromkeys(("vespo_k_pos", "vespo_k_neg", "vespo_lambda_pos", "vespo_lambda_neg"), NOT_NEGATIVE),
    **dict.fromkeys(("delta", "sapo_temperature_pos", "sapo_temperature_neg", "off_policy_mask_threshold"), POSITIVE),
    "top_entropy_quantile": SHARE,
}
CHOICES = {
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}


@dataclass
class GRPOArguments(StageSettings, GRPOConfig):
    """`trl.GRPOConfig` with the defaults of this project."""

    reward_funcs: list[str] = field(
        default_factory=lambda: ["accuracy", "format"],
        metadata={"help": f"Rewards whose weighted sum is maximised, of: {', '.join(REWARDS)}."},
    )
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    num_generations: int = field(
        default=8, metadata={"help": "Number of completions of each prompt, which are compared."}
    )
    max_completion_length: int = field(default=256, metadata={"help": "Maximum number of tokens in a completion."})
    disable_dropout: bool = field(
        default=True, metadata={"help": "Turn off dropout, so that completions are those of the model."}
    )

    def __post_init__(self) -> None:
        check_rewards(self.reward_funcs, self.reward_weights)
        check_ranges(self, RANGES)
        check_choices(self, {**CHOICES, "loss_type": find_choices(GRPOConfig, "loss_type")})
        if self.sync_ref_model and self.beta == 0:
            raise UserError("sync_ref_model=true has no reference model to move: set beta above 0")
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if self.num_generations < 2:
            raise UserError(f"num_generations={self.num_generations}: at least 2 completions are compared")
        if self.tokens_per_step is not None:
            for name in ("steps_per_generation", "generation_batch_size"):
                if (value := getattr(self, name)) is not None:
                    raise UserError(
                        f"{name}={value} beside tokens_per_step={self.tokens_per_step}, which generates the completions of "
                        "one step together: leave one of them out"
                    )
            # Decided by set_accumulation, which checks it; until then any that the library takes.
            self.steps_per_generation = self.num_generations
        elif self.generation_batch_size is None:  # else the library checks it
            self._check_groups(processes)
        super().__post_init__()
        if self.tokens_per_step is None:
            self._warn_of_saves_within_a_generation()

    def _check_groups(self, processes: int) -> None:
        name = "gradient_accumulation_steps" if self.steps_per_generation is None else "steps_per_generation"
        steps = getattr(self, name)
        if self.per_device_train_batch_size * steps * processes % self.num_generations:
            raise UserError(
                f"per_device_train_batch_size={self.per_device_train_batch_size} times {name}="
                f"{steps} on {processes} processes must be a multiple of "
                f"num_generations={self.num_generations}: all completions of a prompt are generated and compared together"
            )

    def _warn_of_saves_within_a_generation(self) -> None:
        """Say that a run that resumes between two steps of one generation is not the unbroken one: it generates anew."""
        micro_steps = self.steps_per_generation * self.num_iterations
        every = math.lcm(micro_steps, self.gradient_accumulation_steps) // self.gradient_accumulation_steps
        if self.save_strategy == "steps" and self.save_steps >= 1 and self.save_steps % every:
            logger.warning(
                "save_steps=%g: completions serve %d steps, so a run that resumes from a checkpoint among these generates anew "
                "and is not the unbroken one; a multiple of %d avoids that",
                self.save_steps,
                every,
                every,
            )

    def set_accumulation(self, steps: int) -> None:
        """Set the accumulation steps; the completions of one step are generated together."""
        self.gradient_accumulation_steps = self.steps_per_generation = steps
        self.generation_batch_size = self.per_device_train_batch_size * self.world_size * steps
        self._check_groups(self.world_size)
        self._warn_of_saves_within_a_generation()

    @property
    def groups_per_step(self) -> float:
        """Prompts behind one step of the optimizer."""
        rows = self.per_device_train_batch_size * self.world_size * self.gradient_accumulation_steps
        return rows / self.num_generations / self.num_iterations


GRPO_ARGUMENTS: Arguments = (AdapterArguments, DataArguments, GRPOArguments)


class DogeGRPOTrainer(DogeOnTRL, GRPOTrainer):
    """`trl.GRPOTrainer` with the promises of this project, which counts the groups that teach nothing.

    Completions are generated with the bounded cache, which is what `generate` of a Doge takes by itself.
    """

    # What the trainer beside it brings.
    num_generations: int
    num_generations_eval: int
    eos_token_ids: list[int]
    reward_weights: torch.Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        rewards = kwargs["reward_funcs"] if isinstance(kwargs["reward_funcs"], list) else [kwargs["reward_funcs"]]
        if any(getattr(reward, "__name__", "") == "accuracy_reward" for reward in rewards):
            for name in ("train_dataset", "eval_dataset"):
                _check_references(name, kwargs.get(name))
        # Shares of the groups since the last line of the log, while it trains and while it is evaluated.
        self.group_shares: dict[bool, dict[str, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
        super().__init__(*args, **kwargs)

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        training = self.model.training
        ends = {*self.eos_token_ids, self.processing_class.pad_token_id}
        cut_off = torch.tensor([ids[-1] not in ends for ids in completion_ids_list], device=self.accelerator.device)
        size = self.num_generations if training else self.num_generations_eval
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        # TRL's own count of equal rewards looks for a deviation of exactly 0, which rounding hides.
        totals = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1).view(-1, size)
        equal = totals.amax(dim=1) - totals.amin(dim=1) < EQUAL
        shares = self.group_shares[training]
        shares[ZERO_VARIANCE].append(equal.float().mean().item())
        shares[CUT_OFF].append(self.accelerator.gather(cut_off).view(-1, size).all(dim=1).float().mean().item())
        return rewards

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as in TRL, with the shares of the groups that teach nothing."""
        training = self.model.training
        prefix = "" if training else "eval_"
        logs |= {f"{prefix}{name}": sum(x) / len(x) for name, x in self.group_shares[training].items()}
        self.group_shares[training].clear()
        super().log(logs, *args, **kwargs)


def _check_references(name: str, rows: Any) -> None:
    """Refuse reference answers that can't be verified before the first step: rows may have been made elsewhere.

    Raises:
        ValueError: there are some, with their number and the first one.
    """
    if not isinstance(rows, Dataset):
        return
    faults = [(text, fault) for text in rows["solution"] if (fault := find_fault(text))]
    if faults:
        raise UserError(
            f"{name}: {len(faults)} of {len(rows)} rows have a solution that the reward accuracy can't verify, such as "
            f"{faults[0][0]!r} ({faults[0][1]}); prepare the rows with small-doge data prepare --stage grpo"
        )


class GroupCallback(TrainerCallback):
    """Says what share of the groups taught nothing, and when the run has learnt nothing."""

    def __init__(self) -> None:
        self.told = False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """Say once, while the run goes, that its groups teach nothing."""
        if self.told or not state.is_world_process_zero or not logs or "reward" not in logs:
            return
        message = judge_groups(state.log_history, args)
        if message and state.global_step * args.groups_per_step >= EARLY_GROUPS:
            logger.warning("%s", message)
            self.told = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Judge groups and rewards of the whole run."""
        if not state.is_world_process_zero:
            return
        messages = [judge_groups(state.log_history, args), judge_rewards(state.log_history)]
        if count := count_groups(state.log_history, args):
            logger.info("%s", describe_groups(count))
        for message in filter(None, messages):
            logger.warning("%s", message)


def count_groups(history: list[dict], args: GRPOArguments) -> dict[str, int]:
    """Count the groups of a run, those whose rewards were all the same, and those whose completions were all cut off."""
    counts, before = {"all": 0.0, ZERO_VARIANCE: 0.0, CUT_OFF: 0.0}, 0
    for row in history:
        if "reward" not in row:
            continue
        groups = (row["step"] - before) * args.groups_per_step
        before = row["step"]
        counts["all"] += groups
        for name in (ZERO_VARIANCE, CUT_OFF):
            counts[name] += groups * (row.get(name) or 0.0)
    return {name: round(value) for name, value in counts.items()} if before else {}


def describe_groups(count: dict[str, int]) -> str:
    """Describe the groups of a run in one line."""
    return (
        f"of {count['all']} groups of completions, {count[ZERO_VARIANCE]} had equal rewards and {count[CUT_OFF]} "
        "were all cut off; neither teach anything"
    )


def judge_groups(history: list[dict], args: GRPOArguments) -> str | None:
    """Say what is wrong with the groups so far, or return None."""
    count = count_groups(history, args)
    if not count or not count["all"]:
        return None
    if count[CUT_OFF] > 0.5 * count["all"]:
        return (
            f"{describe_groups(count)}: completions don't end. Raise max_completion_length (now "
            f"{args.max_completion_length}), or fine-tune first so that answers end their turn"
        )
    if count[ZERO_VARIANCE] > 0.9 * count["all"]:
        return (
            f"{describe_groups(count)}: the problems are too hard or too easy for this model. Fine-tune it on worked "
            f"problems first, choose others, or raise num_generations (now {args.num_generations}) or temperature"
        )
    return None


def judge_rewards(history: list[dict]) -> str | None:
    """Say that the reward at the end is no higher than at the start, by more than chance explains; or return None."""
    rewards = torch.tensor([row["reward"] for row in history if row.get("reward") is not None])
    edge = round(len(rewards) * JUDGED_SHARE)
    if edge < 2:
        return None
    first, last = rewards[:edge], rewards[-edge:]
    gain = (last.mean() - first.mean()).item()
    noise = ((first.var() + last.var()) / edge).sqrt().item()
    if gain > 2 * noise and gain > 0:
        return None
    return (
        f"the reward went from {first.mean():.3f} to {last.mean():.3f}, no more than chance explains: the run has learnt "
        "nothing that shows. Train longer, raise learning_rate, or choose problems that the model gets right sometimes"
    )


def set_up(settings: Mapping[str, Any]) -> TrainingSetup:
    """Train on problems, with the rewards that the settings name."""
    return TrainingSetup(
        "Group relative policy optimisation",
        GRPO_ARGUMENTS,
        DogeGRPOTrainer,
        columns=("prompt", "solution"),
        callbacks=(GroupCallback,),
        build_extras=lambda run, model, tokenizer: {
            "reward_funcs": make_rewards(
                run.args.reward_funcs, tuple(run.data.thinking_tags), run.args.max_completion_length
            )
        },
        counts_own_tokens=True,
    )


if __name__ == "__main__":
    run_script("grpo")
