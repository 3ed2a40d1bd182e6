"""A few steps of every recipe in `recipes/tiny`, as exact as the processor allows, and their losses as files.

`make golden` writes the files anew: for a change that is meant to change losses, and says why.

The recipes keep their settings, but for what makes them small. Numbers are float64, and weights and draws come from numpy, whose
generators are the same everywhere: torch's normal and exponential numbers depend on the processor's instructions.
"""

import contextlib
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.models.doge import attention
from small_doge.processor import train_tokenizer
from small_doge.processor.corpus import iterate_mixture
from small_doge.processor.tokenizer import build_generation_config
from small_doge.trainer.base import CheckpointingMixin
from small_doge.trainer.callbacks import read_log
from small_doge.trainer.recipe import read_recipe
from small_doge.trainer.runner import train_stage


FOLDER = Path(__file__).parent
RECIPES = FOLDER.parents[1] / "recipes" / "tiny"
# The stage of each recipe.
RECIPE_STAGES = {name: name for name in ("pretrain", "sft", "dpo", "distill", "grpo")} | {"teach": "distill"}
# FlexAttention has no gradients on a CPU, and the fused backend is what `auto` takes for short documents.
BACKENDS = ("reference", "auto", "streaming")
# Of the log, what is compared.
MEASURED = ("loss", "grad_norm", "eval_loss", "reward")

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 128,
    "keep_window_size": 16,  # less than the length of a row, so that keys are left out
}
SMALL = {
    "total_sample_size": 16,
    "max_length": 64,
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "dataset_num_proc": 1,
    "overwrite": True,
}
EVALUATED = {"test_size": 4, "eval_strategy": "steps", "eval_steps": 4}
GENERATED = {"per_device_train_batch_size": 8, "max_completion_length": 8}
CHANGES: dict[str, dict[str, Any]] = {
    "pretrain": EVALUATED,
    "sft": EVALUATED,
    "dpo": EVALUATED,
    "distill": EVALUATED,
    "grpo": {**GENERATED, "num_generations": 4},
    "teach": GENERATED,
}
MAX_DOCUMENTS = 200
# Of the tokens that are drawn, those that end an answer whatever their probability, so that answers differ in length.
ENDS = 0.15


def prepare(folder: Path) -> None:
    """A tokenizer, and a model for the stages that start from one."""
    tokenizer = train_tokenizer(
        iterate_mixture(400), vocab_size=SHAPE["vocab_size"], max_digits=1, model_max_length=64
    )
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model = DogeForCausalLM(DogeConfig(**SHAPE, **tokens))
    model.generation_config = build_generation_config(tokenizer)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def shrink(name: str, folder: Path, backend: str) -> dict[str, Any]:
    """What is changed in a recipe."""
    recipe = read_recipe(RECIPES / f"{name}.yaml")
    mix = [
        {re.sub(r"\d+$", lambda count: str(min(int(count[0]), MAX_DOCUMENTS)), source): share}
        for entry in recipe["datasets_and_ratios"]
        for source, share in entry.items()
    ]
    model = str(folder / "model")
    start = (
        {"model_overrides": SHAPE, "tokenizer_name_or_path": model}
        if name == "pretrain"
        else {"model_name_or_path": model}
    )
    if "teacher_model_name_or_path" in recipe:
        start["teacher_model_name_or_path"] = model
    places = {"cache_dir": str(folder / "data"), "output_dir": str(folder / name / backend)}
    return {**SMALL, **CHANGES[name], **start, **places, "datasets_and_ratios": mix}


def run(name: str, folder: Path, backend: str) -> dict[str, list[float]]:
    """Train by a recipe with an attention backend, and read the log.

    Args:
        name: of the recipe.
        folder: where `prepare` has been.
        backend: of the attention, wherever the model takes its usual one.
    """
    with exact_numbers(backend):
        output = train_stage(RECIPE_STAGES[name], RECIPES / f"{name}.yaml", shrink(name, folder, backend))
    rows = read_log(output / "training_log.jsonl")
    found = {key: [row[key] for row in rows if key in row] for key in MEASURED}
    return {key: values for key, values in found.items() if values}


@contextlib.contextmanager
def exact_numbers(backend: str) -> Iterator[None]:
    """Float64, weights and draws from numpy, rewards that an untrained model gets sometimes."""
    build, draws, ends = CheckpointingMixin.__init__, np.random.default_rng(7), []

    def in_float64(self: Any, *args: Any, **kwargs: Any) -> None:
        for seed, part in enumerate(("model", "teacher_model")):
            if part in kwargs:
                fill(kwargs[part].double(), seed)
        ends.append(kwargs["processing_class"].eos_token_id)
        if "reward_funcs" in kwargs:
            kwargs["reward_funcs"] = [reward_low_tokens, reward_even_tokens]
        build(self, *args, **kwargs)

    def draw(weights: torch.Tensor, num_samples: int, **options: Any) -> torch.Tensor:
        steps = weights.cumsum(-1)
        places = torch.from_numpy(draws.random((len(weights), num_samples))) * steps[:, -1:]
        ended = torch.from_numpy(draws.random((len(weights), num_samples)) < ENDS)
        return torch.where(ended, ends[-1], torch.searchsorted(steps, places))

    usual = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            os, "environ", os.environ
        )  # `datasets` puts another mapping in its place, which tests after it would meet
        patch.setattr(CheckpointingMixin, "__init__", in_float64)
        patch.setattr(torch, "multinomial", draw)
        patch.setitem(attention.BACKEND_ALIASES, "sdpa", backend)
        patch.setattr(Figure, "savefig", lambda *args, **kwargs: None)  # takes longer than the training
        torch.set_default_dtype(torch.float64)  # the trainer adds up losses in it
        try:
            yield
        finally:
            torch.set_default_dtype(usual)


@torch.no_grad()
def fill(model: torch.nn.Module, seed: int) -> None:
    """Weights from numpy: scales near their first value, all others near 0 and large enough for scores and losses that differ."""
    numbers = np.random.default_rng(seed)
    for parameter in model.parameters():
        noise = torch.from_numpy(numbers.standard_normal(tuple(parameter.shape)))
        is_scale = parameter.dim() == 1 and bool((parameter == parameter[0]).all()) and bool(parameter[0] != 0)
        parameter.copy_(parameter * (1 + 0.1 * noise) if is_scale else 0.2 * noise)


def reward_low_tokens(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """The share of tokens in the lower half of the vocabulary."""
    return [sum(token < SHAPE["vocab_size"] // 2 for token in ids) / len(ids) for ids in completion_ids]


def reward_even_tokens(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """The share of even tokens."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def read_golden(name: str) -> dict[str, dict[str, list[float]]]:
    """What a recipe gave when its file was written, by backend."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def main(names: list[str], folder: Path = FOLDER) -> None:
    """Write the files of some recipes, or of all."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        prepare(Path(temporary))
        for name in names or RECIPE_STAGES:
            found = {backend: run(name, Path(temporary), backend) for backend in BACKENDS}
            text = json.dumps(found, indent=2)
            text = re.sub(r"\[[^\]]*\]", lambda values: json.dumps(json.loads(values[0])), text)  # a list a line
            (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
