"""A request: what prompts it takes, and with which reason and text it finishes."""

import numpy as np
import pytest
import torch

from small_doge.utils.errors import UserError

from .conftest import distinct_tokens


PROMPTS = [[5, 17, 3], [9, 2, 44, 8, 1], [60, 61, 62, 63, 64, 65, 66, 67, 68, 69]]
SETTINGS = {"max_new_tokens": 9, "ignore_eos": True}
LONG_PROMPTS = [distinct_tokens(n, 97, seed=n).tolist() for n in (1, 20, 7, 33, 12, 5)]


@pytest.mark.parametrize("prompt", ["text", [1.5], [True], [[1, 2]], [None], ["1"], 5, {1: 2}, np.zeros((2, 2)), b"a"])
def test_a_prompt_that_is_no_list_of_tokens_is_refused(engine, prompt):
    with pytest.raises(UserError, match="prompt"):
        engine.stream(prompt)


@pytest.mark.parametrize("prompt", [np.array([1, 2]), torch.tensor([1, 2]), (1, 2), range(1, 3), iter([1, 2])])
def test_a_prompt_may_be_any_flat_sequence(engine, prompt):
    assert engine.submit(prompt).prompt_ids == [1, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_end_the_answer_with_an_error(engine, monkeypatch, bad):
    prefill, asked = engine.backend.prefill, []

    def spoil(slot, ids):
        logits = prefill(slot, ids).copy()
        asked.append(slot)
        if len(asked) == 3:
            logits[7] = bad
        return logits

    monkeypatch.setattr(engine.backend, "prefill", spoil)
    request = engine.submit(PROMPTS[0], **SETTINGS)
    with pytest.raises(UserError, match="not finite"):
        list(engine.follow(request))
    assert request.finish_reason == "error" and len(request.output) == 2
    assert "not finite" in engine.explain_finish(request)
    assert len(list(engine.stream(PROMPTS[0], **SETTINGS))) == 9


def test_why_an_answer_ended_is_told(engine):
    engine.backend.max_length = 8
    short, long = (
        engine.submit(PROMPTS[0], max_new_tokens=2, ignore_eos=True),
        engine.submit(PROMPTS[0], ignore_eos=True),
    )
    for request in (short, long):
        list(engine.follow(request))
    assert engine.explain_finish(short) == "cut off at max_new_tokens=2"
    assert "cut off at 8 tokens of prompt and answer" in engine.explain_finish(long)


def test_stop_texts_may_be_special_tokens(engine, tiny_tokenizer, monkeypatch):
    turn, ids = "<|eot_id|>", tiny_tokenizer("An answer.", add_special_tokens=False)["input_ids"]
    end = tiny_tokenizer.convert_tokens_to_ids(turn)
    written = [*ids, end, *ids]

    for stop in (turn, f"er.{turn}", f"{turn}An"):
        request = engine.submit(PROMPTS[0], max_new_tokens=20, ignore_eos=True, stop=stop)
        rest = iter(written)
        monkeypatch.setattr(request.sampler, "_pick", lambda logits, rest=rest: next(rest))
        text = "".join(engine.follow_text(request))
        assert text == "An answ" if stop.startswith("er") else text == "An answer.", stop
        assert request.finish_reason == "stop"


def test_half_a_character_at_the_end_is_given_out_as_the_replacement_character(engine, tiny_tokenizer, monkeypatch):
    ids = tiny_tokenizer("é", add_special_tokens=False)["input_ids"]
    assert len(ids) > 1
    request = engine.submit(PROMPTS[0], max_new_tokens=len(ids) - 1, ignore_eos=True)
    rest = iter(ids)
    monkeypatch.setattr(request.sampler, "_pick", lambda logits: next(rest))
    assert "".join(engine.follow_text(request)) == "\ufffd"


def test_end_token_ends_unless_ignored(make_engine):
    free = list(make_engine().stream(LONG_PROMPTS[2], max_new_tokens=40, ignore_eos=True))
    engine = make_engine()
    engine.end_ids = (free[5],)
    request = engine.submit(LONG_PROMPTS[2], max_new_tokens=40)
    expected = free[: free.index(free[5]) + 1]
    assert [token.id for token in engine.follow(request)] == expected
    assert request.finish_reason == "stop"
    assert list(engine.stream(LONG_PROMPTS[2], max_new_tokens=40, ignore_eos=True)) == free
    stopped = list(engine.stream(LONG_PROMPTS[2], max_new_tokens=40, ignore_eos=True, stop_token_ids=[free[2]]))
    assert stopped == free[: free.index(free[2]) + 1]


def test_answer_stops_at_the_models_limit_and_a_longer_prompt_is_refused(make_engine):
    engine = make_engine(max_length=24)
    request = engine.submit(LONG_PROMPTS[1], max_new_tokens=50, ignore_eos=True)
    assert len(list(engine.follow(request))) == 4
    assert request.finish_reason == "length"
    with pytest.raises(UserError, match="the prompt has 33 tokens; .* takes 24 with the answer"):
        engine.stream(LONG_PROMPTS[3])
