"""Engines: the same requests alone and together, cached prompts, stops, errors, and freed slots."""

import json
import pickle
import threading

import numpy as np
import pytest
import torch
from tests.chats import ATTACK, count_special, turns

from small_doge.inference import TorchEngine
from small_doge.inference.engine import Engine
from small_doge.utils.errors import UserError

from .conftest import build_model, distinct_tokens


@pytest.fixture(params=["onnx", "torch"])
def make_engine(request, make_backend):
    def make(num_slots=4, max_length=None, tokenizer=None, **overrides):
        model = build_model(**overrides)
        if request.param == "torch":
            engine = TorchEngine(model, tokenizer, num_slots=num_slots)
            engine.backend.max_length = max_length
            return engine
        return Engine(make_backend(model, num_slots=num_slots, max_length=max_length), tokenizer, [3], "the model")

    return make


@torch.no_grad()
def write_greedily(prompt, count, **overrides):
    """The likeliest tokens by full forward passes, without any cache."""
    model, ids = build_model(**overrides), list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


PROMPTS = [distinct_tokens(n, 97, seed=n).tolist() for n in (1, 20, 7, 33, 12, 5)]


@pytest.mark.parametrize("window", [8, 64])
def test_greedy_answer_is_that_of_full_forward_passes(make_engine, window):
    engine = make_engine(keep_window_size=window)
    found = list(engine.stream(PROMPTS[1], max_new_tokens=12, ignore_eos=True))
    assert found == write_greedily(PROMPTS[1], 12, keep_window_size=window)


def test_answers_computed_together_are_those_computed_alone(make_engine):
    engine = make_engine(num_slots=3, keep_window_size=8)
    lengths = [5, 17, 9, 3, 12, 8]
    alone = [
        list(make_engine(keep_window_size=8).stream(prompt, max_new_tokens=length, ignore_eos=True))
        for prompt, length in zip(PROMPTS, lengths, strict=True)
    ]
    requests = [
        engine.submit(prompt, max_new_tokens=length, ignore_eos=True)
        for prompt, length in zip(PROMPTS, lengths, strict=True)
    ]
    together = [[token.id for token in engine.follow(request)] for request in requests]
    assert together == alone
    assert not engine.scheduler.running and engine.scheduler.prefilling is None


def test_answers_asked_for_from_several_threads_are_computed_together(make_engine):
    engine, results = make_engine(num_slots=4), {}
    expected = {i: list(make_engine().stream(p, max_new_tokens=20, ignore_eos=True)) for i, p in enumerate(PROMPTS)}

    def work(number):
        results[number] = list(engine.stream(PROMPTS[number], max_new_tokens=20, ignore_eos=True))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == expected


def test_a_shared_beginning_is_computed_once_and_changes_nothing(make_engine):
    engine = make_engine(keep_window_size=64)
    first = list(engine.stream(PROMPTS[3], max_new_tokens=6, ignore_eos=True))
    computed = engine.scheduler.num_prompt_tokens_computed
    follow_up = PROMPTS[3] + first + [1, 2]
    request = engine.submit(follow_up, max_new_tokens=6, ignore_eos=True)
    found = [token.id for token in engine.follow(request)]
    assert found == write_greedily(follow_up, 6, keep_window_size=64)
    assert request.num_cached_tokens >= len(PROMPTS[3]) + len(first) - 1
    assert engine.scheduler.num_prompt_tokens_computed - computed == len(follow_up) - request.num_cached_tokens <= 3
    branch = [*PROMPTS[3][:20], 4, 5]
    request = engine.submit(branch, max_new_tokens=6, ignore_eos=True)
    assert [token.id for token in engine.follow(request)] == write_greedily(branch, 6, keep_window_size=64)
    assert request.num_cached_tokens == 20


def test_past_the_window_only_a_whole_saved_text_is_gone_on_from(make_engine):
    engine = make_engine(keep_window_size=8)
    list(engine.stream(PROMPTS[3], max_new_tokens=6, ignore_eos=True))
    branch = engine.submit([*PROMPTS[3][:20], 4, 5], max_new_tokens=4, ignore_eos=True)
    found = [token.id for token in engine.follow(branch)]
    assert branch.num_cached_tokens == 0
    assert found == write_greedily([*PROMPTS[3][:20], 4, 5], 4, keep_window_size=8)
    longer = engine.submit(PROMPTS[3] + [1, 2], max_new_tokens=4, ignore_eos=True)
    found = [token.id for token in engine.follow(longer)]
    assert longer.num_cached_tokens == len(PROMPTS[3])
    assert found == write_greedily(PROMPTS[3] + [1, 2], 4, keep_window_size=8)


def test_closing_a_stream_frees_its_slot_and_leaves_the_others_alone(make_engine):
    engine = make_engine(num_slots=3)
    streams = [engine.stream(prompt, max_new_tokens=30, ignore_eos=True) for prompt in PROMPTS[:5]]
    heads = [next(stream) for stream in streams[:3]]
    streams[0].close()
    streams[3].close()  # before it was asked for anything
    late = engine.submit(PROMPTS[5], max_new_tokens=30, ignore_eos=True)
    engine.cancel(late)  # before its prompt was begun
    assert late.finish_reason == "cancelled" and not engine.scheduler.waiting
    rest = list(streams[1])
    assert [heads[1], *rest] == list(make_engine().stream(PROMPTS[1], max_new_tokens=30, ignore_eos=True))
    assert len(list(streams[4])) == 30
    streams[2].close()
    assert len(late.output_ids) == 0
    assert not engine.scheduler.running and not engine.scheduler.waiting and engine.scheduler.prefilling is None


def test_end_token_ends_unless_ignored(make_engine):
    free = list(make_engine().stream(PROMPTS[2], max_new_tokens=40, ignore_eos=True))
    engine = make_engine()
    engine.end_ids = (free[5],)
    request = engine.submit(PROMPTS[2], max_new_tokens=40)
    expected = free[: free.index(free[5]) + 1]
    assert [token.id for token in engine.follow(request)] == expected
    assert request.finish_reason == "stop"
    assert list(engine.stream(PROMPTS[2], max_new_tokens=40, ignore_eos=True)) == free
    stopped = list(engine.stream(PROMPTS[2], max_new_tokens=40, ignore_eos=True, stop_token_ids=[free[2]]))
    assert stopped == free[: free.index(free[2]) + 1]


def test_answer_stops_at_the_models_limit_and_a_longer_prompt_is_refused(make_engine):
    engine = make_engine(max_length=24)
    request = engine.submit(PROMPTS[1], max_new_tokens=50, ignore_eos=True)
    assert len(list(engine.follow(request))) == 4
    assert request.finish_reason == "length"
    with pytest.raises(UserError, match="the prompt has 33 tokens; .* takes 24 with the answer"):
        engine.stream(PROMPTS[3])


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
