"""Tasks of lighteval that ask what `small-doge eval` asks: its prompts, which `small-doge eval prompts` has written.

lighteval imports this file by `--custom-tasks`; the environment variable PROMPTS_DIR names the folder of the prompts. It
runs in lighteval's own environment, and so imports nothing of small_doge but one file that needs nothing else.
"""

import functools
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from lighteval.metrics.metrics_sample import SampleLevelComputation
from lighteval.metrics.utils.metric_utils import Metric, SampleLevelMetric, SampleLevelMetricGrouping
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc, SamplingMethod
from lighteval.tasks.tasks.ifeval.main import ifeval_metrics


CONTENTS = "prompts.json"
MATCHING = Path(__file__).parents[1] / "src" / "small_doge" / "evaluation" / "tasks" / "matching.py"


def make_choices(line: dict[str, Any], task_name: str, chat: bool) -> Doc:
    """Make an item whose choices are scored.

    lighteval scores texts after one context. After the texts that count come `specific["given"]` others, whose likelihood is
    taken off: where contexts differ at their ends (the end of a sentence is scored after each choice), these ends; in a chat,
    the empty text, because lighteval moves the white space at the end of a context, here the template's, to each choice.
    """
    continuations = line["continuations"]
    contexts = line["contexts"] if len(line["contexts"]) > 1 else line["contexts"] * len(continuations)
    query = _find_common(contexts)
    ends = [context[len(query) :] for context in contexts]
    texts = [end + continuation for end, continuation in zip(ends, continuations, strict=True)]
    given = ends if any(ends) else [""] if chat else []
    return Doc(
        task_name=task_name,
        query=query,
        choices=[*texts, *given],
        gold_index=line["answer"],
        specific={"id": line["id"], "given": len(given), "lengths": [len(choice) for choice in line["choices"]]},
    )


def _find_common(contexts: list[str]) -> str:
    """Return what all contexts begin with, up to where a word begins in each."""
    common = os.path.commonprefix(contexts)  # noqa: RUF071 (these are texts)
    if all(context == common for context in contexts):
        return common
    return common[: max(common.rfind(" "), common.rfind("\n")) + 1]


def make_question(line: dict[str, Any], task_name: str) -> Doc:
    """Make an item whose answer is generated."""
    doc = line["doc"]
    specific = {"id": line["id"], **doc, "instructions_id_list": doc.get("instruction_id_list")}
    return Doc(task_name=task_name, query=line["context"], choices=[""], gold_index=0, specific=specific)


class Likeliest(SampleLevelComputation):
    """Tells whether the right choice is the likeliest, as a whole (`acc`) and by its characters (`acc_norm`)."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> dict[str, int]:
        """Compare the log-probabilities of the choices."""
        given, lengths = doc.specific["given"], doc.specific["lengths"]
        logprobs = np.array(model_response.logprobs[: len(doc.choices)])
        likelihoods = logprobs[: len(lengths)]
        if given:
            likelihoods = likelihoods - logprobs[-given:]
        chosen = {"acc": likelihoods.argmax(), "acc_norm": (likelihoods / lengths).argmax()}
        return {name: int(chosen[name] == doc.gold_index) for name in self.names}


class Matching(SampleLevelComputation):
    """Judges a generated answer by a function of `small-doge eval`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> float:
        """Judge an answer."""
        return getattr(load_matching(), self.name)(doc.specific, [model_response.text[0]])["exact_match"]


@functools.cache
def load_matching() -> ModuleType:
    """Load the file of small_doge that matches answers, without the package, which needs another environment."""
    spec = importlib.util.spec_from_file_location("matching", MATCHING)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_metrics(described: dict[str, Any]) -> list[Metric]:
    """Make the metrics of a task."""
    scorer = described.get("scorer")
    if scorer == "follow_instructions":
        import langdetect

        langdetect.DetectorFactory.seed = 0  # it draws at random what it looks at
        return [ifeval_metrics]
    if scorer is None:
        names = described["metrics"]
        metric = SampleLevelMetricGrouping(
            metric_name=names,
            higher_is_better=dict.fromkeys(names, True),
            category=SamplingMethod.LOGPROBS,
            sample_level_fn=Likeliest(names),
            corpus_level_fn=dict.fromkeys(names, np.mean),
        )
        return [metric]
    if not hasattr(load_matching(), scorer):
        raise ValueError(f"answers that {scorer} judges can't be scored outside of small-doge; leave the task out")
    return [
        SampleLevelMetric(
            metric_name="exact_match",
            higher_is_better=True,
            category=SamplingMethod.GENERATIVE,
            sample_level_fn=Matching(scorer),
            corpus_level_fn=np.mean,
        )
    ]


def make_task(folder: Path, described: dict[str, Any]) -> LightevalTaskConfig:
    """Make a task of lighteval; its examples stand in the prompts, so that lighteval adds none."""
    return LightevalTaskConfig(
        name=described["name"],
        prompt_function=make_question
        if "scorer" in described
        else functools.partial(make_choices, chat=described["chat"]),
        hf_repo=str(folder),
        hf_subset="default",
        metrics=make_metrics(described),
        hf_avail_splits=["test"],
        evaluation_splits=["test"],
        few_shots_split="test",
        generation_size=described.get("max_new_tokens"),
        stop_sequence=described.get("until"),
        version=described["version"],
    )


def read_tasks(folder: Path) -> list[LightevalTaskConfig]:
    """Read the tasks of a folder of prompts."""
    if not (folder / CONTENTS).is_file():
        raise SystemExit(f"PROMPTS_DIR={folder} has no {CONTENTS}; write it with: small-doge eval prompts -o {folder}")
    contents = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
    return [make_task(folder / task, described) for task, described in contents["tasks"].items()]


TASKS_TABLE = read_tasks(Path(os.environ.get("PROMPTS_DIR", "prompts")).resolve())
