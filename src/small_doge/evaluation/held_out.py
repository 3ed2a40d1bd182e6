"""How a model answers what no training text tells: the same questions after every stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..processor.chat_encoding import encode_chat, encode_prompt
from ..processor.chat_template import CHAT_TEMPLATE
from ..processor.corpus import Question, held_out_preferences, held_out_problems, held_out_questions
from ..processor.data_config import DEFAULT_THINKING_TAGS
from ..utils.answers import is_right, says, split_thought


BATCH = 50
QUESTIONS, PROBLEMS, PREFERENCES = 100, 200, 100
MAX_NEW_TOKENS = 96
SEED = 0


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
            do_sample=seed is not None,
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


def said_at_last(answer: Answer) -> str:
    """Return an answer without the thought before it."""
    return split_thought(answer.text, DEFAULT_THINKING_TAGS)[1].strip()


def is_direct(answer: Answer) -> bool:
    """Tell whether an answer, after any thought, is one line and ends its turn by itself."""
    return answer.ended and bool(said_at_last(answer)) and "\n" not in said_at_last(answer)


def answers_question(question: Question, answer: Answer) -> bool:
    """Tell whether the words that a right answer must hold stand in the first line of the answer, after any thought."""
    said = said_at_last(answer).split("\n")[0]
    if question.kind == "sum":
        return is_right(said, question.short_answer)
    return says(said.split(" is ", 1)[-1], question.short_answer)


@torch.no_grad()
def score_preferences(model: Any, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[dict]) -> tuple[float, float]:
    """Return the share of pairs whose better answer is likelier, and by how many nats it is in the mean."""
    texts: list[tuple[list[int], list[int]]] = []
    for pair in pairs:
        prompt = _encode(tokenizer, pair["prompt"], generation=True)
        whole = (_encode(tokenizer, [*pair["prompt"], *pair[name]]) for name in ("chosen", "rejected"))
        texts += [(prompt, tokens[len(prompt) :]) for tokens in whole]
    sums: list[float] = []
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        length = max(len(prompt) + len(answer) for prompt, answer in part)
        ids = torch.full((len(part), length), tokenizer.pad_token_id or 0)
        mask, learnt = torch.zeros_like(ids), torch.zeros(ids.shape, dtype=torch.bool)
        for row, (prompt, answer) in enumerate(part):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.tensor(prompt + answer)
            mask[row, :end], learnt[row, len(prompt) : end] = 1, True
        ids, mask, learnt = ids.to(model.device), mask.to(model.device), learnt.to(model.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        logp = torch.log_softmax(logits[:, :-1], dim=-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        sums += (logp * learnt[:, 1:]).sum(-1).tolist()
    margins = torch.tensor(sums[::2]) - torch.tensor(sums[1::2])
    return (margins > 0).float().mean().item(), margins.mean().item()


def _count_solved(problems: Sequence[dict[str, str]], answers: Sequence[Answer]) -> float:
    solved = [is_right(said_at_last(a).split("\n")[0], p["final"]) for p, a in zip(problems, answers, strict=True)]
    return sum(solved) / len(solved)


def measure(model: Any, tokenizer: PreTrainedTokenizerBase, chat: bool) -> Scores:
    """Measure how the model does on what no document of the embedded corpus tells.

    Args:
        model: a causal language model trained on the embedded corpus, in eval mode.
        tokenizer: of it.
        chat: whether it has learnt to chat; a base model is asked by letting it go on from the question.
    """
    questions, problems = held_out_questions(QUESTIONS), held_out_problems(PROBLEMS)
    asked = [q.question for q in questions] + [p["question"] for p in problems]
    answers = answer_all(model, tokenizer, asked, chat)
    right = [answers_question(q, a) for q, a in zip(questions, answers, strict=False)]
    likeliest = _count_solved(problems, answers[len(questions) :])
    drawn = _count_solved(problems, answer_all(model, tokenizer, asked[len(questions) :], chat, seed=SEED))
    accuracy, margin = score_preferences(model, tokenizer, held_out_preferences(PREFERENCES))
    return Scores(
        questions=sum(right) / len(right),
        problems=likeliest,
        drawn=drawn,
        direct=sum(map(is_direct, answers)) / len(answers),
        preferences=accuracy,
        margin=margin,
    )
