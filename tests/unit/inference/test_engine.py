"""Engines: text, chat, JSON and log-probabilities are those of the model; bad requests are refused."""

import json
import pickle

import numpy as np
import pytest
import torch
from tests.chats import ATTACK, count_special, turns
from tests.conftest import build_tiny

from small_doge.inference import TorchEngine, open_engine
from small_doge.utils.errors import UserError

from .conftest import build_model, distinct_tokens, write_greedily


PROMPTS = [distinct_tokens(n, 97, seed=n).tolist() for n in (1, 20, 7, 33, 12, 5)]


@pytest.mark.parametrize("window", [8, 64])
def test_greedy_answer_is_that_of_full_forward_passes(make_engine, window):
    engine = make_engine(keep_window_size=window)
    found = list(engine.stream(PROMPTS[1], max_new_tokens=12, ignore_eos=True))
    assert found == write_greedily(PROMPTS[1], 12, keep_window_size=window)


def test_bad_requests_are_refused_before_any_work(make_engine):
    engine = make_engine()
    with pytest.raises(UserError, match="unknown option 'temprature'; did you mean 'temperature'"):
        engine.stream([1], temprature=1)
    with pytest.raises(UserError, match="token 97; the model has 0 to 96"):
        engine.stream([1, 97])
    with pytest.raises(UserError, match="prompt is empty"):
        engine.stream([])
    with pytest.raises(UserError, match="has no tokenizer"):
        engine.generate("text")
    assert not engine.scheduler.waiting


def test_batch_that_is_refused_or_stopped_leaves_nothing_behind(make_engine, tiny_tokenizer, monkeypatch):
    engine = make_engine(tokenizer=tiny_tokenizer, vocab_size=len(tiny_tokenizer), max_length=24)
    with pytest.raises(UserError, match="takes 24 with the answer"):
        engine.generate_batch([[5, 6], list(range(30))])
    assert not engine.scheduler.waiting
    steps = iter([engine.backend.decode] * 2)

    def step(*arguments):
        for real in steps:
            return real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.backend, "decode", step)
    with pytest.raises(KeyboardInterrupt):
        engine.generate_batch([[5, 6], [7, 8], [9]], ignore_eos=True)
    assert not engine.scheduler.running and not engine.scheduler.waiting and engine.scheduler.prefilling is None


def test_text_chat_and_batches_go_through_the_tokenizer(make_engine, tiny_tokenizer):
    engine = make_engine(tokenizer=tiny_tokenizer, vocab_size=len(tiny_tokenizer))
    ids = list(engine.stream(engine.encode("Ada lives in"), max_new_tokens=24, ignore_eos=True))
    expected = tiny_tokenizer.decode(ids, skip_special_tokens=True)
    text = engine.generate("Ada lives in", max_new_tokens=24, ignore_eos=True)
    assert text.rstrip("\ufffd") == expected.rstrip("\ufffd")
    batch = engine.generate_batch(["Ada lives in", "The"], max_new_tokens=24, ignore_eos=True)
    assert batch[0] == text
    assert text
    stop = text[len(text) // 2 :][:2]
    assert engine.generate("Ada lives in", max_new_tokens=24, ignore_eos=True, stop=stop) == text[: text.index(stop)]
    # Nothing is computed past a stop, even of a request that nobody reads yet.
    first = engine.submit(engine.encode("The"), max_new_tokens=24, ignore_eos=True)
    second = engine.submit(engine.encode("Ada lives in"), max_new_tokens=24, ignore_eos=True, stop=stop)
    "".join(engine.follow_text(first))
    assert second.finish_reason == "stop" and len(second.output_ids) < 24
    assert "".join(engine.follow_text(second)) == text[: text.index(stop)]
    text = "".join(engine.chat([{"role": "user", "content": "Hi"}], max_new_tokens=4))
    assert isinstance(text, str)


def test_json_schema_is_followed_whatever_the_model_would_write(make_engine, tiny_tokenizer):
    pytest.importorskip("llguidance")
    engine = make_engine(tokenizer=tiny_tokenizer, vocab_size=len(tiny_tokenizer), max_length=None)
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}, "old": {"type": "boolean"}},
        "required": ["name", "old"],
        "additionalProperties": False,
    }
    for seed in range(3):
        text = engine.generate("Ada", max_new_tokens=120, temperature=1.0, seed=seed, json_schema=schema)
        found = json.loads(text)
        assert set(found) == {"name", "old"} and isinstance(found["old"], bool)
    pickle.dumps(tiny_tokenizer)  # nothing was hung on it
    with pytest.raises(UserError, match="json_schema"):
        engine.generate("Ada", json_schema={"type": "nonsense"})


def test_logprobs_are_those_of_the_model(make_engine):
    engine = make_engine()
    tokens = list(engine.stream_tokens(PROMPTS[1], max_new_tokens=3, ignore_eos=True, logprobs=5))
    with torch.no_grad():
        logits = build_model()(torch.tensor([PROMPTS[1]])).logits[0, -1]
    expected = logits.log_softmax(-1)
    assert tokens[0].logprob == pytest.approx(float(expected.max()), abs=1e-4)
    assert list(tokens[0].top_logprobs) == expected.topk(5).indices.tolist()
    assert np.isclose(list(tokens[0].top_logprobs.values()), expected.topk(5).values, atol=1e-4).all()


def test_what_a_user_types_is_text_and_a_begin_token_is_never_doubled(make_engine, tiny_tokenizer):
    engine = make_engine(tokenizer=tiny_tokenizer, vocab_size=len(tiny_tokenizer))
    ids = engine.render(turns(ATTACK))
    assert count_special(tiny_tokenizer, ids) == 6 and "<|begin_of_text|>" in tiny_tokenizer.decode(ids[6:])
    assert engine.encode("<|begin_of_text|>Hi") == engine.encode("Hi") == tiny_tokenizer("Hi")["input_ids"]
    assert count_special(tiny_tokenizer, engine.encode("Hi<|eot_id|>")) == 1


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_slots_and_threads_are_checked(tiny_tokenizer, number):
    with pytest.raises(UserError, match="num_slots=.* must be a whole number of at least 1"):
        TorchEngine(build_tiny(), num_slots=number)
    for name in ("num_slots", "threads"):
        with pytest.raises(UserError, match=f"{name}=.* must be a whole number of at least 1"):
            open_engine("nowhere", **{name: number})
