"""Other models on the same tasks, through the harness's own model class on plain `transformers`."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM
from transformers import AutoConfig, AutoTokenizer

from ..inference.loading import is_exported
from ..utils.errors import UserError
from ..utils.vocabulary import check_tokenizer_fits
from .comparison import number_items
from .lm import MAX_NEW_TOKENS, NO_SCORE, EngineLM, Notes, share_length
from .provenance import hash_model
from .running import Plan, Say, hash_template, make_content, run_plan
from .suites import name_folder


HF_BATCH_SIZE = 8  # where no number is given


class _Reporter:
    """Stands in the place of the harness's cache of answers, which is told of each answer."""

    def __init__(self, report: Callable[[float], None], total: int) -> None:
        self.report, self.total = report, total

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        """Report a further answer."""
        self.report(1 / self.total)


class CountingHFLM(HFLM):
    """The harness's class, which cuts long texts on the left; here they are counted.

    Attributes:
        report: told which share of the requests is done whenever one is; the harness shows bars of its own if it is None.
        notes: counts of what could not be asked as it was meant; those of split words and unended answers stay 0.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.notes = Notes()
        self.report: Callable[[float], None] | None = None

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Score continuations as the harness does."""
        return super().loglikelihood(requests, self._report_answers(requests) or disable_tqdm)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Generate answers as long as the model's length allows; the harness itself refuses any that might be longer."""
        fitting = [self._shorten(request) for request in requests]
        return super().generate_until(fitting, self._report_answers(requests) or disable_tqdm)

    def _report_answers(self, requests: Sequence[Any]) -> bool:
        """Let `report` be told of each answer to requests; return whether it is."""
        if self.report is None:
            return False
        self.set_cache_hook(_Reporter(self.report, len(requests)))
        return True

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], *args: Any, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        fits = [len(continuation) <= self.max_length for _, _, continuation in requests]
        fitting = [request for request, fit in zip(requests, fits, strict=True) if fit]
        self.notes.num_requests += len(requests) - len(fitting)
        self.notes.num_unscorable += len(requests) - len(fitting)
        for _, context, continuation in fitting:
            self._count(len(context) + len(continuation), self.max_length + 1)  # the last token is not computed
        scores = iter(super()._loglikelihood_tokens(fitting, *args, **kwargs) if fitting else [])
        return [next(scores) if fit else NO_SCORE for fit in fits]

    def _shorten(self, request: Any) -> Any:
        """Return a request whose answer ends where the model's length does."""
        context, given = request.args
        lengths = ("max_gen_toks", "max_new_tokens")
        wanted = next((given[name] for name in lengths if name in given), MAX_NEW_TOKENS)
        _, allowed = share_length(self.max_length, len(self.tok_encode(context)), wanted)
        if allowed == wanted:
            return request
        shorter = copy.copy(request)
        rest = {name: value for name, value in given.items() if name not in lengths}
        shorter.arguments = (context, {**rest, "max_gen_toks": allowed})
        return shorter

    def tok_batch_encode(
        self, strings: list[str], padding_side: str = "left", left_truncate_len: int | None = None, **kwargs: Any
    ) -> Any:
        """Tokenize contexts, of which at most `left_truncate_len` tokens are left."""
        for string in strings:
            length = len(self.tok_encode(string))
            self._count(length, left_truncate_len or length)
        return super().tok_batch_encode(strings, padding_side, left_truncate_len, **kwargs)

    def _count(self, length: int, room: int) -> None:
        self.notes.num_requests += 1
        if length > room:
            self.notes.num_cut += 1
            self.notes.num_cut_tokens += length - room


@contextmanager
def _telling_failure(model: str) -> Iterator[None]:
    """Raise a `UserError` that says why a model can't be opened by `transformers`, which is tried within."""
    if is_exported(model):
        raise UserError(f"{model} is an exported folder, which transformers can't open; name the checkpoint")
    try:
        yield
    except (OSError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise UserError(
            f"{model} can't be opened by transformers: {first}. Give a folder, or a hub name where a network or a mirror "
            "(HF_ENDPOINT) has it"
        ) from error


def check_control(model: str, plan: Plan) -> None:
    """Refuse a model that `transformers` can't open or that does not suit a plan, by all that it has beside its weights.

    Raises:
        UserError: there is no such model, it is an export, or it has no chat template where one is needed.
    """
    with _telling_failure(model):
        AutoConfig.from_pretrained(model)
        tokenizer = AutoTokenizer.from_pretrained(model)
    hash_template(model, getattr(tokenizer, "chat_template", None), plan)


def open_with_hf(model: str, batch_size: int | None = None, max_length: int | None = None) -> CountingHFLM:
    """Open a checkpoint or hub name with the harness's class for `transformers`.

    Raises:
        UserError: there is no such model, or it can't be opened.
    """
    with _telling_failure(model):
        lm = CountingHFLM(
            pretrained=model,
            device="cpu",
            dtype="float32",
            batch_size=batch_size or HF_BATCH_SIZE,
            max_length=max_length,
        )
    check_tokenizer_fits(lm.tokenizer, lm.config.get_text_config(), model, lm.model.generation_config)
    return lm


def run_controls(
    models: Sequence[str],
    plan: Plan,
    parts: dict[tuple[str, int], dict[str, Any]],
    facts: dict[str, Any],
    folder: Path,
    batch_size: int | None,
    say: Say,
) -> list[dict[str, Any]]:
    """Score other models on the tasks of a plan; each is kept in a folder of its own, so that a run goes on.

    Args:
        models: folders or hub names.
        plan: what to ask.
        parts: what the tasks gave for the model; others are scored on the same items.
        facts: versions and commit of the run.
        folder: of the results.
        batch_size: texts that are computed together.
        say: told what is being done.

    Raises:
        UserError: one can't be opened, or has no chat template where one is needed.
    """
    found = []
    for model in models:
        say(f"{model}, with the harness's hf class")
        lm = open_with_hf(model, batch_size)
        own = {**_describe(lm, model, plan), **{name: facts[name] for name in ("versions", "commit")}}
        theirs = run_plan(lm, plan, own, folder / "controls" / name_folder(model), say)
        same = {place: _keep_items(part, parts[place]) for place, part in theirs.items()}
        found.append({"model": model, **own, "rows": make_content(plan, same)["rows"]})
    return found


def _keep_items(part: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Return what a task gave on the items that we scored, with the number of those that could not be scored here."""
    theirs, wanted = number_items(part["items"]), number_items(ours["items"])
    items = [theirs[key] for key in wanted if key in theirs]
    return {**part, "items": items, "notes": {**part["notes"], "num_left_out": len(wanted) - len(items)}}


def check_with_hf(
    lm: EngineLM,
    model: str,
    plan: Plan,
    parts: dict[tuple[str, int], dict[str, Any]],
    facts: dict[str, Any],
    folder: Path,
    say: Say,
) -> list[dict[str, Any]]:
    """Ask the same tasks of the same checkpoint through plain `transformers`, and compare item by item.

    Returns:
        For each task: how many items there are, how many scored the same, and by how much log-likelihoods differ at most;
        with the counts of what our model asks in another way than the harness.
    """
    say(f"{model} again, with the harness's hf class")
    other = open_with_hf(model, lm.batch_size, lm.max_length)
    own = {**_describe(other, model, plan), **{name: facts[name] for name in ("versions", "commit")}}
    again = run_plan(other, plan, own, folder / "check-with-hf", say)
    found = [_compare(parts[key], again[key]) for key in plan.tasks]
    return [part for part in found if part["n"]]


def _compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Compare what two runs of a task gave on the items that both could score."""
    first, second = number_items(ours["items"]), number_items(theirs["items"])
    pairs = [(item, second[key]) for key, item in first.items() if key in second]
    differences = [
        abs(a - b)
        for one, other in pairs
        for a, b in zip(one.get("loglikelihoods", ()), other.get("loglikelihoods", ()), strict=True)
    ]
    return {
        "task": ours["task"],
        "shots": ours["shots"],
        "chat": ours["chat"],
        "n": len(pairs),
        "num_same_scores": sum(one["score"] == other["score"] for one, other in pairs),
        "num_same_prompts": sum(one["prompt_hash"] == other["prompt_hash"] for one, other in pairs),
        "largest_difference": max(differences, default=None),
        "num_same_answers": sum(one["answer"] == other["answer"] for one, other in pairs if "answer" in one),
        **{name: ours["notes"][name] for name in ("num_cut", "num_split_words")},
    }


def _describe(lm: HFLM, model: str, plan: Plan) -> dict[str, Any]:
    """Return what decides the answers of a control."""
    template = getattr(lm.tokenizer, "chat_template", None)
    return {
        "model_hash": hash_model(model),
        "chat_template_hash": hash_template(model, template, plan),
        "max_length": lm.max_length,
    }
