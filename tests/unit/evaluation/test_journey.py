"""The report of a pipeline: questions of one's own, scores that are kept, a page that stands alone."""

import json

import pytest
import torch
from tests.conftest import build_tiny

from small_doge.evaluation import journey
from small_doge.evaluation.held_out import Answer
from small_doge.evaluation.journey import Result, measure_stage, read_questions, score_questions, write_report
from small_doge.evaluation.model_report import find_scores
from small_doge.evaluation.provenance import hash_model
from small_doge.processor.tokenizer import build_generation_config


def test_questions_are_read_in_any_usual_form(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": 2}\n{"problem": "2 + 2?", "solution": "4"}\n')
    assert read_questions(path) == [("1 + 1?", "2"), ("2 + 2?", "4")]


def test_a_question_without_an_answer_is_asked_and_not_scored(tmp_path, monkeypatch):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Hi!"}\n{"question": "1 + 1?", "answer": 2}\n')
    assert read_questions(path) == [("Hi!", None), ("1 + 1?", "2")]
    monkeypatch.setattr(journey, "answer_all", lambda *args: [Answer("Hello!", True), Answer("It is 3.", True)])
    assert score_questions(None, None, read_questions(path), True) == {"questions right": 0.0, "direct answers": 1.0}
    monkeypatch.setattr(journey, "answer_all", lambda *args: [Answer("Hello!", True)])
    assert score_questions(None, None, [("Hi!", None)], True) == {"direct answers": 1.0}


@pytest.mark.parametrize("line", ["{", '{"text": "a"}', "[]", '{"answer": 1}'])
def test_a_line_without_a_question_is_named(tmp_path, line):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": 2}\n' + line + "\n")
    with pytest.raises(ValueError, match="row 2: (invalid JSON|not a JSON object|no question)"):
        read_questions(path)
    with pytest.raises(ValueError, match="there is no such file"):
        read_questions(tmp_path / "none")


def test_numbers_are_verified_and_words_must_be_said(monkeypatch):
    answers = [Answer("<think>\n4\n</think>\n\nIt is 12.", True), Answer("In Sandport.", True), Answer("112", False)]
    monkeypatch.setattr(journey, "answer_all", lambda *args: answers)
    scores = score_questions(None, None, [("a", "12"), ("b", "sandport"), ("c", "12")], chat=True)
    assert scores == {"questions right": pytest.approx(2 / 3), "direct answers": pytest.approx(2 / 3)}


def test_scores_are_made_once(tmp_path, tiny_tokenizer, monkeypatch):
    model = build_tiny(vocab_size=512)
    model.generation_config = build_generation_config(tiny_tokenizer)
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    first = measure_stage(tmp_path, True, [("What is 1 + 1?", "2")])
    monkeypatch.setattr(journey, "load_model", None)
    assert measure_stage(tmp_path, True, [("What is 1 + 1?", "2")]) == first
    assert set(first) == {"model_hash", "questions_hash", "scores", "samples"} and list(first["samples"]) == [
        "What is 1 + 1?"
    ]
    assert json.loads((tmp_path / "scores.json").read_text()) == first


@pytest.mark.parametrize("change", ["weights", "answers", "more questions", "chat"])
def test_scores_of_other_weights_or_questions_are_made_anew(tmp_path, tiny_tokenizer, change):
    def save(seed):
        torch.manual_seed(seed)
        model = build_tiny(vocab_size=512)
        model.generation_config = build_generation_config(tiny_tokenizer)
        model.save_pretrained(tmp_path)

    save(1)
    tiny_tokenizer.save_pretrained(tmp_path)
    questions = [(f"What is {n} + 1?", str(n + 1)) for n in range(4)]
    measure_stage(tmp_path, True, questions)
    before = (tmp_path / "scores.json").read_text()
    assert find_scores(tmp_path, hash_model(str(tmp_path)))["held_out"] == json.loads(before)["scores"]
    if change == "weights":
        save(2)
        found = find_scores(tmp_path, hash_model(str(tmp_path)))
        assert found["held_out"] is None and found["outdated"] == [str(tmp_path / "scores.json")]
    elif change == "answers":
        questions[0] = (questions[0][0], "7")
    elif change == "more questions":
        questions = [questions[n % 4] for n in range(5)]
    measure_stage(tmp_path, change != "chat", questions)
    assert (tmp_path / "scores.json").read_text() != before


def test_other_questions_are_asked_anew(tmp_path, tiny_tokenizer):
    model = build_tiny(vocab_size=512)
    model.generation_config = build_generation_config(tiny_tokenizer)
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    for question in ("What is 1 + 1?", "What is 2 + 2?"):
        assert list(measure_stage(tmp_path, True, [(question, "2")])["samples"]) == [question]


def test_a_loss_too_small_to_show_is_not_marked_as_one(tmp_path):
    facts = {"tokens": "1,000", "seconds": 75}
    scores = [{"right": 0.503, "margin": 12.01}, {"right": 0.5, "margin": 11.98}]
    results = [Result(name, score, {}, facts) for name, score in zip(("sft", "dpo"), scores, strict=True)]
    page = write_report(tmp_path, "Journey", results, {}).read_text()
    assert '50% <small class="">+0%</small>' in page and '12.0 <small class="">+0.0</small>' in page
    assert "| dpo | 50% (+0%)" in (tmp_path / "report.md").read_text()


def test_the_page_stands_alone_and_shows_what_each_stage_changed(tmp_path):
    (tmp_path / "sft").mkdir()
    picture = tmp_path / "sft" / "loss.png"
    picture.write_bytes(b"png")
    facts = {"tokens": "1,000", "seconds": 75, "finished_at": 1.0}
    results = [
        Result("pretrain", {"right": 0.1, "margin": 12.0}, {"<b>Who?</b>": "<script>"}, facts),
        Result("sft", {"right": 0.35, "margin": 11.0}, {"<b>Who?</b>": "Doge | me"}, facts, picture),
    ]
    page = write_report(tmp_path, "Journey", results, {"torch": "2"}).read_text()
    assert "35%" in page and "+25%" in page and "-1.0" in page and "1:15" in page and "2:30" in page
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/png;base64,") == 2 and "finished_at" not in page and 'src="sft' not in page
    text = (tmp_path / "report.md").read_text()
    assert "| sft | 35% (+25%)" in text and "](sft/loss.png)" in text and "](journey.png)" in text
    assert (tmp_path / "journey.png").stat().st_size > 5000
