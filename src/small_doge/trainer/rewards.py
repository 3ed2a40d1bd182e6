"""Rewards for GRPO: each takes completions with the columns of their rows and gives a number for each.

A reward has TRL's signature, so any of them also works in `trl.GRPOTrainer`, and any of TRL's kind works here.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..processor.data_config import DEFAULT_THINKING_TAGS
from ..utils.answers import is_right, split_thought
from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message


Reward = Callable[..., list[float]]

NGRAM = 3
# A step: "Step 2", "2.", "- ", "ones:", "First," and the like at the start of a sentence or line, or an equation.
_STEP = re.compile(
    r"^(?:step\s*\d+|\d+[.)](?!\d)|[-*•]\s|first|second|third|then|next|finally|so\b|therefore|\w+:\s)|\S\s*=\s*\S",
    re.I,
)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_SPECIAL_TOKEN = r"<\|[a-z_]+\|>"


def make_accuracy_reward(tags: tuple[str, str] = DEFAULT_THINKING_TAGS) -> Reward:
    """Make a reward of 1 where the answer after the thought states the value of the column `solution`, else 0."""

    def accuracy_reward(completions: Sequence[Any], solution: Sequence[str], **columns: Any) -> list[float]:
        answers = [split_thought(read_completion(c, tags), tags)[1] for c in completions]
        return [float(is_right(a, reference)) for a, reference in zip(answers, solution, strict=True)]

    return accuracy_reward


def make_format_reward(tags: tuple[str, str] = DEFAULT_THINKING_TAGS) -> Reward:
    """1 for one thought between the tags, at the start and not empty, with an answer after it; else 0."""

    def format_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
        return [float(is_well_formed(read_completion(c, tags), tags)) for c in completions]

    return format_reward


def is_well_formed(text: str, tags: tuple[str, str] = DEFAULT_THINKING_TAGS) -> bool:
    """Tell whether a text is one thought between the tags and then an answer."""
    text = text.strip()
    if text.count(tags[0]) != 1 or text.count(tags[1]) != 1 or not text.startswith(tags[0]):
        return False
    thought, answer = split_thought(text, tags)
    return bool(thought.strip()) and bool(answer.strip())


def make_length_reward(limit: int, margin: float = 0.2) -> Reward:
    """Make a reward of 0 for completions that leave the last fifth of the room unused, then down to -1 at the limit.

    The soft punishment of overlong answers in DAPO (https://arxiv.org/abs/2503.14476, equation 13).

    Args:
        limit: tokens that a completion may have.
        margin: share of them over which the reward falls.
    """
    start = limit * (1 - margin)

    def length_reward(completion_ids: Sequence[Sequence[int]], **columns: Any) -> list[float]:
        return [-min(1.0, max(0.0, (len(ids) - start) / (limit - start))) for ids in completion_ids]

    return length_reward


def repetition_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """0 for a text whose runs of three words are all different, down to -1 for one that repeats a single one."""
    return [-_repeated_share(read_completion(c).lower().split()) for c in completions]


def _repeated_share(words: list[str]) -> float:
    grams = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def make_steps_reward(tags: tuple[str, str] = DEFAULT_THINKING_TAGS, enough: int = 3) -> Reward:
    """Make a reward for steps that can be told apart in the thought, as a share of `enough`, at most 1; 0 without a thought.

    A step is a sentence or line that is numbered, named ("ones: ..."), begins with a word of order, or holds an equation.
    The same step twice counts once.
    """

    def steps_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
        thoughts = [split_thought(read_completion(c, tags), tags)[0] for c in completions]
        return [min(1.0, len(_find_steps(thought or "")) / enough) for thought in thoughts]

    return steps_reward


def _find_steps(thought: str) -> set[str]:
    parts = (part.strip() for part in _SENTENCE.split(thought))
    return {part.lower() for part in parts if _STEP.search(part)}


def read_completion(completion: Any, tags: tuple[str, str] = DEFAULT_THINKING_TAGS) -> str:
    """Read the text of a completion, which may be a list of messages; special tokens are left out, unless they are tags."""
    text = completion if isinstance(completion, str) else "".join(m["content"] or "" for m in completion)
    kept = "|".join(map(re.escape, tags))
    return re.sub(f"({kept})|{_SPECIAL_TOKEN}", r"\1", text)


# By the names that recipes use: each makes a reward of (thinking tags, tokens a completion may have).
REWARDS: dict[str, Callable[[tuple[str, str], int], Reward]] = {
    "accuracy": lambda tags, limit: make_accuracy_reward(tags),
    "format": lambda tags, limit: make_format_reward(tags),
    "length": lambda tags, limit: make_length_reward(limit),
    "repetition": lambda tags, limit: repetition_reward,
    "steps": lambda tags, limit: make_steps_reward(tags),
}


def check_rewards(names: Sequence[str], weights: Sequence[float] | None = None) -> None:
    """Refuse rewards that can't be made.

    Raises:
        ValueError: none is named, one twice, or one that does not exist; or the weights are not as many.
    """
    if not names or len(set(names)) < len(names):
        raise UserError(f"reward_funcs={list(names)}: name at least one reward, and none twice ({', '.join(REWARDS)})")
    for name in names:
        if name not in REWARDS:
            raise UserError(unknown_name_message("reward in reward_funcs", name, REWARDS))
    if weights is not None and len(weights) != len(names):
        raise UserError(
            f"reward_weights={weights}: {len(names)} rewards are named in reward_funcs, give a weight for each"
        )


def make_rewards(names: Sequence[str], tags: tuple[str, str], limit: int) -> list[Reward]:
    """Make the rewards that a recipe names, for thinking tags and a number of tokens that a completion may have."""
    check_rewards(names)
    return [REWARDS[name](tags, limit) for name in names]
