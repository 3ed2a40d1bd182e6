"""What the tasks of a suite ask, written down: every prompt as the harness makes it, with the right answer.

Other toolkits read these files, so that a task is asked in the same words everywhere.
"""

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM

from ..utils.errors import UserError
from ..utils.files import write_json, write_text
from ..utils.model_folder import load_tokenizer
from .running import Plan, evaluate_task, is_chat
from .task_files import LoadedTask


CONTENTS, NAMES = "prompts.json", "tasks.txt"


class _Listener(LM):
    """Answers nothing; the harness keeps with each item what it asked.

    A conversation is its one message: each toolkit writes the chat template around it.
    """

    tokenizer_name = "none"

    def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        return [(0.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        return [0.0] * len(requests)

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        return [""] * len(requests)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        (message,) = chat_history
        return message["content"]


def write_prompts(plan: Plan, folder: Path) -> dict[str, Any]:
    """Write what a plan asks: for each task a file of JSON lines, `prompts.json`, which tells about them, and their names.

    A line has the item's `id` and, where choices are scored, its `contexts` (one, or one for each choice), `continuations`,
    `choices` and `answer`; where an answer is generated, its `context`, and in `doc` what the answer is judged by.

    Args:
        plan: tasks whose data were read.
        folder: for the files, `TASK/test.jsonl`.

    Returns:
        The content of `prompts.json`.

    Raises:
        UserError: a task is asked after several numbers of examples.
    """
    names = [name for name, _ in plan.tasks]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UserError(f"--shots: prompts are written for one number of examples; {doubled[0]} has several")
    described = {}
    for (name, shots), task in plan.tasks.items():
        chat = is_chat(plan, task)
        lines = (json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in list_prompts(task, chat))
        write_text(folder / name / "test.jsonl", "".join(lines))
        described[name] = {"name": _name(name, plan.rows), "shots": shots, "chat": chat, **_describe(task)}
    content = {
        "suite": plan.suite,
        "limit": plan.limit,
        "rows": plan.rows,
        "tasks": described,
        "skipped": plan.skipped,
        "versions": {name: importlib.metadata.version(name) for name in ("small-doge", "lm-eval")},
    }
    write_text(folder / NAMES, "".join(f"{task['name']}\n" for task in described.values()))
    write_json(folder / CONTENTS, content)
    return content


def _name(task: str, rows: dict[str, tuple[str, ...]]) -> str:
    """Name a task for lighteval, which averages those whose names begin with the same group."""
    group = next((row.lower() for row, parts in rows.items() if task in parts and len(parts) > 1), None)
    return f"doge_{group}:{task}" if group else f"doge_{task}"


def list_prompts(task: LoadedTask, chat: bool) -> list[dict[str, Any]]:
    """List what the harness asks of each item.

    Args:
        task: whose rows were read.
        chat: whether a chat template is put around the prompts, which changes what the harness writes before a choice.
    """
    found = []
    for row, sample in zip(task.rows, evaluate_task(_Listener(), task, chat), strict=True):
        asked = sample["arguments"]
        if task.config["output_type"] == "generate_until":
            found.append({"id": row["id"], "context": asked[0][0], "doc": _leave_out_shots(row)})
        else:
            contexts, continuations = ([pair[part] for pair in asked] for part in (0, 1))
            found.append(
                {
                    "id": row["id"],
                    "contexts": contexts[:1] if len(set(contexts)) == 1 else contexts,
                    "continuations": continuations,
                    "choices": row["choices"],
                    "answer": row["answer"],
                }
            )
    return found


def _leave_out_shots(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the examples, which stand in the prompt."""
    return {name: value for name, value in row.items() if name != "shots"}


def _describe(task: LoadedTask) -> dict[str, Any]:
    """Tell how the answers to a task are got and scored."""
    described = {
        "items": len(task.rows),
        "task_hash": task.task_hash,
        "version": task.metadata["version"],
        "form": task.metadata["form"],
        "metric": task.metadata["score"],
        "metrics": [metric["metric"] for metric in task.config["metric_list"]],
    }
    if task.config["output_type"] == "generate_until":
        settings = task.config["generation_kwargs"]
        described["until"], described["max_new_tokens"] = settings["until"], settings["max_gen_toks"]
        described["scorer"] = task.config["process_results"].__name__
    return described


def write_chat_tokenizer(model: str, folder: Path) -> str:
    """Write a model's tokenizer with the token that ends a turn as its end token, for toolkits that stop at that one alone.

    Returns:
        The end token.

    Raises:
        UserError: the model has no chat template.
    """
    tokenizer = load_tokenizer(model, "--tokenizer")
    if not tokenizer.chat_template:
        raise UserError(f"--tokenizer {model}: it has no chat template, which the suite asks in; take --suite base")
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    _, _, after = tokenizer.apply_chat_template(messages, tokenize=False).rpartition("!")
    special = [i for i in tokenizer(after, add_special_tokens=False).input_ids if i in tokenizer.all_special_ids]
    if special:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(special[0])
    tokenizer.save_pretrained(folder)
    return tokenizer.eos_token
