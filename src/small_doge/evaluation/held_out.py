"""How a model answers what no training text tells: the task files demo_*, asked after every stage.

Answers are judged by the functions that the task files name, so the harness gives the same scores; the demo itself needs no
harness, and generates with `transformers`, many answers at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..inference import TorchEngine
from ..processor.chat_encoding import encode_chat, encode_prompt
from ..processor.chat_template import CHAT_TEMPLATE
from .scoring import ScoredText, score_texts
from .task_files import load_task
from .tasks.scorers import answer_question, is_direct, prefer_chosen, solve_problem


BATCH = 50
LIMIT: int | None = None  # items of each task; all if None
MAX_NEW_TOKENS = 96
SEED = 0
# From all that the model holds possible, as the engines draw; `transformers` leaves out all but 50 tokens otherwise.
DRAWN = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True)
class Scores:
    """Shares between 0 and 1.

    Args:
        questions: about the world, answered right.
        problems: whose answers are verified, answered right.
        drawn: the same problems, with answers drawn from the model in place of the likeliest.
        direct: answers, after any thought, of one line that end their turn by themselves.
        preferences: pairs of answers of which the better one is likelier.
        margin: by how much likelier, in nats, mean over the pairs.
    """

    questions: float
    problems: float
    drawn: float
    direct: float
    preferences: float
    margin: float


@dataclass(frozen=True)
class Answer:
    """What a model said, and whether it ended by itself."""

    text: str
    ended: bool


@torch.no_grad()
def answer_all(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    chat: bool,
    max_new_tokens: int | None = None,
    seed: int | None = None,
) -> list[Answer]:
    """Generate the likeliest answer to each question, or draw one from the model.

    Args:
        model: a causal language model, in eval mode.
        tokenizer: of it.
        questions: texts.
        chat: ask in the chat template; without it, let the model go on from the question, as a base model does.
        max_new_tokens: after which an answer is cut off; `MAX_NEW_TOKENS` if None.
        seed: of drawn answers; None takes the likeliest.
    """
    prompts = [encode_question(tokenizer, q) if chat else encode_prompt(tokenizer, q) for q in questions]
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    if seed is not None:
        torch.manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # little padding
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        inputs = tokenizer.pad(
            {"input_ids": [prompts[i] for i in part]}, return_tensors="pt", padding=True, padding_side="left"
        ).to(model.device)
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens or MAX_NEW_TOKENS,
            **({"do_sample": False} if seed is None else DRAWN),
        )[:, inputs["input_ids"].shape[1] :]
        for i, tokens in zip(part, output.tolist(), strict=True):
            end = next((k for k, token in enumerate(tokens) if token in ends), None)
            answers[i] = Answer(tokenizer.decode(tokens[:end], skip_special_tokens=True).strip(), end is not None)
    return [answers[i] for i in range(len(prompts))]


def encode_question(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    """Return the tokens of a question in the chat template, up to where the assistant speaks."""
    return _encode(tokenizer, [{"role": "user", "content": question}], generation=True)


def _encode(tokenizer: PreTrainedTokenizerBase, messages: list[dict], generation: bool = False) -> list[int]:
    template = tokenizer.chat_template or CHAT_TEMPLATE
    return encode_chat(tokenizer, messages, add_generation_prompt=generation, template=template).ids


def score_preferences(
    model: Any, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[dict[str, Any]]
) -> list[dict[str, float]]:
    """Tell of each question's two answers whether the better one is likelier as a whole turn, and by how many nats."""
    texts = []
    for pair in pairs:
        question = {"role": "user", "content": pair["question"]}
        prompt = _encode(tokenizer, [question], generation=True)
        for answer in pair["choices"]:
            whole = _encode(tokenizer, [question, {"role": "assistant", "content": answer}])
            texts.append(ScoredText(tuple(prompt), tuple(whole[len(prompt) :])))
    found = [
        (likelihood.total, likelihood.is_greedy) for likelihood in score_texts(TorchEngine(model, tokenizer), texts)
    ]
    return [prefer_chosen(pair, found[2 * i : 2 * i + 2]) for i, pair in enumerate(pairs)]


def measure(model: Any, tokenizer: PreTrainedTokenizerBase, chat: bool) -> Scores:
    """Measure how the model does on what no document of the embedded corpus tells.

    Args:
        model: a causal language model trained on the embedded corpus, in eval mode.
        tokenizer: of it.
        chat: whether it has learnt to chat; a base model is asked by letting it go on from the question.
    """
    questions, problems, pairs = (
        load_task(f"demo_{name}", Path(), limit=LIMIT).rows for name in ("questions", "problems", "preferences")
    )
    asked = [row["question"] for row in (*questions, *problems)]
    answers = answer_all(model, tokenizer, asked, chat)
    right = [answer_question(q, [a.text])["exact_match"] for q, a in zip(questions, answers, strict=False)]
    preferred = score_preferences(model, tokenizer, pairs)
    return Scores(
        questions=_average(right),
        problems=_count_solved(problems, answers[len(questions) :]),
        drawn=_count_solved(problems, answer_all(model, tokenizer, asked[len(questions) :], chat, seed=SEED)),
        direct=_average([is_direct(answer.text, answer.ended) for answer in answers]),
        preferences=_average([one["acc"] for one in preferred]),
        margin=_average([one["margin"] for one in preferred]),
    )


def _count_solved(problems: Sequence[dict[str, Any]], answers: Sequence[Answer]) -> float:
    """Return the share of problems that are solved."""
    return _average([solve_problem(p, [a.text])["exact_match"] for p, a in zip(problems, answers, strict=True)])


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)
