"""Held-out questions: asked in batches, answered alike one by one, judged by what must be said."""

import json
from pathlib import Path

import pytest
import torch
from tests.chats import count_special
from tests.conftest import build_tiny
from tools.embedded_tasks import FOLDER, make_rows

from small_doge.evaluation.held_out import (
    Answer,
    Scores,
    answer_all,
    encode_question,
    measure,
    score_preferences,
)
from small_doge.evaluation.task_files import load_task
from small_doge.evaluation.tasks.scorers import answer_question, is_direct
from small_doge.processor.corpus import (
    held_out_preferences,
    held_out_problems,
    held_out_questions,
    iterate_documents,
)
from small_doge.processor.tokenizer import build_generation_config
from small_doge.utils.answers import is_right


@pytest.fixture
def model(tiny_tokenizer):
    model = build_tiny(vocab_size=512, keep_window_size=64, max_position_embeddings=128)
    model.generation_config = build_generation_config(tiny_tokenizer)
    return model


def test_answers_do_not_depend_on_what_is_asked_beside_them(model, tiny_tokenizer):
    questions = [q.question for q in held_out_questions(6)]
    together = answer_all(model, tiny_tokenizer, questions, chat=True, max_new_tokens=8)
    alone = [answer_all(model, tiny_tokenizer, [q], chat=True, max_new_tokens=8)[0] for q in questions]
    assert together == alone


def test_a_drawn_answer_may_have_any_token(model, tiny_tokenizer):
    """By default, transformers draws from the 50 likeliest ones."""
    drawn, generate = set(), model.generate

    def spy(**inputs):
        output = generate(**inputs)
        drawn.update(output[:, inputs["input_ids"].shape[1]].tolist())
        return output

    model.generate = spy
    answer_all(model, tiny_tokenizer, ["Who?"] * 150, chat=False, max_new_tokens=1, seed=0)
    assert len(drawn) > 60


@pytest.mark.parametrize("chat", [True, False])
def test_control_tokens_in_a_question_are_text_and_the_begin_token_is_never_doubled(model, tiny_tokenizer, chat):
    seen = []
    generate = model.generate
    model.generate = lambda **inputs: seen.append(inputs["input_ids"][0].tolist()) or generate(**inputs)
    for question in ("Hi", "<|begin_of_text|>Hi", "Hi<|eot_id|>"):
        answer_all(model, tiny_tokenizer, [question], chat=chat, max_new_tokens=1)
    assert [count_special(tiny_tokenizer, ids) for ids in seen] == ([6] * 3 if chat else [1] * 3)


def test_preferences_are_scored_by_the_likelihood_of_the_whole_answer(model, tiny_tokenizer):
    (pair,) = load_task("demo_preferences", Path(), limit=1).rows
    (score,) = score_preferences(model, tiny_tokenizer, [pair])
    expected = []
    for choice in pair["choices"]:
        prompt = encode_question(tiny_tokenizer, pair["question"])
        answer = tiny_tokenizer.encode(choice + "<|eot_id|>", add_special_tokens=False)
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            logp = model(input_ids=ids).logits[0].log_softmax(-1)
        expected.append(sum(logp[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)))
    assert score["margin"] == pytest.approx(expected[0] - expected[1], abs=1e-3)
    assert score["acc"] == (expected[0] > expected[1])


def test_scores_are_the_shares_of_what_is_right(model, tiny_tokenizer, monkeypatch):
    import small_doge.evaluation.held_out as module

    questions, problems = (load_task(f"demo_{name}", Path(), limit=4).rows for name in ("questions", "problems"))
    right = {row["question"]: row["short_answer"] for row in questions}
    right |= {row["question"]: row["final"] for row in problems}
    known = {None: {*list(right)[:3], *list(right)[4:6]}, module.SEED: {problems[3]["question"]}}

    def answer(model, tokenizer, asked, chat, seed=None):
        return [Answer(right[one] if one in known[seed] else "", one != questions[0]["question"]) for one in asked]

    monkeypatch.setattr(module, "LIMIT", 4)
    monkeypatch.setattr(module, "answer_all", answer)
    found = [{"acc": 1.0, "margin": 2.0}, {"acc": 0.0, "margin": -1.0}]
    monkeypatch.setattr(module, "score_preferences", lambda *_: found)
    assert measure(model, tiny_tokenizer, chat=True) == Scores(0.75, 0.5, 0.25, 0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "ended", "direct"),
    [
        ("Mia lives in Sandport.", True, True),
        ("<think>\na\nb\n</think>\n\n7", True, True),
        ("Mia lives in Sandport.", False, False),
        ("Sandport.\nWhat else?", True, False),
        ("<think> a", True, False),
        ("", True, False),
    ],
)
def test_a_direct_answer_is_one_line_that_ends(text, ended, direct):
    assert is_direct(text, ended) == direct


def test_an_answer_must_hold_the_words_and_a_sum_the_value():
    def is_right(kind, short_answer, text):
        return answer_question({"kind": kind, "short_answer": short_answer}, [text])["exact_match"] == 1

    assert is_right("town", "Sandport", "Mia lives in Sandport.")
    assert is_right("town", "Sandport", "<think>\nwho?\n</think>\n\nSandport.")
    assert not is_right("town", "Sandport", "Mia lives in Oakhollow.\nSandport")
    assert not is_right("pet_name", "Dot", "It is called Dotty.") and not is_right("answer", "no", "I do not know.")
    assert is_right("sum", "12", "4 + 8 = 12") and not is_right("sum", "12", "112")


def test_the_task_files_hold_what_the_corpus_holds_out():
    assert {
        name: [json.loads(line) for line in (FOLDER / f"{name}.jsonl").open()] for name in make_rows()
    } == make_rows()


def test_held_out_problems_can_be_verified_and_stand_in_no_row():
    asked = {row["question"] for row in iterate_documents("problem", 5000)}
    assert len({problem["question"] for problem in held_out_problems(300)}) == 300
    for problem in held_out_problems(200):
        assert problem["question"] not in asked
        assert is_right(problem["rationale"], problem["final"])


def test_held_out_pairs_prefer_the_right_answer():
    facts = {q.question: q.answer for q in held_out_questions(200) if q.kind != "sum"}
    results = {p["question"]: p["final"] for p in held_out_problems(100)}
    pairs = held_out_preferences(100)
    for pair in pairs:
        question, chosen, rejected = (pair[name][0]["content"] for name in ("prompt", "chosen", "rejected"))
        assert chosen == facts.get(question, f"It is {results.get(question)}.") != rejected
    assert sum(pair["rejected"][0]["content"].isdigit() for pair in pairs) > 10
