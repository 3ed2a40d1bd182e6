"""What is found out about a prompt is what full forward passes give, and other requests don't notice."""

import numpy as np
import pytest
import torch
from tests.conftest import draw_clear_rows

from small_doge.inference import Embedder, Engine, Scorer, onnx_backend
from small_doge.ops.dynamic_mask_attention.masking import compute_leaving_index
from small_doge.utils.errors import UserError

from .conftest import build_model, distinct_tokens


SETTINGS = {"max_new_tokens": 12, "ignore_eos": True}


@pytest.fixture(params=[1, 5, 64])
def chunk(request, monkeypatch):
    monkeypatch.setattr(Scorer, "chunk_size", request.param)
    return request.param


@torch.no_grad()
def find_logprobs(ids, **overrides):
    return build_model(**overrides)(torch.tensor([ids])).logits[0].log_softmax(-1)


@pytest.mark.parametrize("length", [1, 2, 40])
def test_scores_are_the_probabilities_of_a_full_forward_pass(make_engine, chunk, length):
    ids = distinct_tokens(length, 97).tolist()
    tokens = make_engine().score(ids, top=3)
    expected = find_logprobs(ids)
    assert [token.id for token in tokens] == ids
    assert tokens[0].logprob is None and not tokens[0].top_logprobs
    for place, token in enumerate(tokens[1:]):
        assert token.logprob == pytest.approx(float(expected[place, token.id]), abs=1e-3)
        best = expected[place].topk(3)
        assert list(token.top_logprobs) == best.indices.tolist()
        assert np.allclose(list(token.top_logprobs.values()), best.values, atol=1e-3)
    assert not any(token.top_logprobs for token in make_engine().score(ids))


@pytest.mark.parametrize("length", [3, 8, 9, 40])
@pytest.mark.parametrize("spare", [4, 256])
def test_kept_keys_are_those_of_the_masking_at_their_places(make_engine, monkeypatch, chunk, length, spare):
    monkeypatch.setattr(onnx_backend, "SPARE_KEYS", spare)  # compacted often, or never
    window = 8
    model = build_model(keep_window_size=window)
    engine = make_engine(keep_window_size=window, num_slots=2)
    ids = draw_clear_rows(model, 1, 97, length)[0].tolist()
    inspection = engine.inspect(ids, top=2)
    assert [token.id for token in inspection.tokens] == ids
    scores = read_scores(engine, ids, window)
    leaving = compute_leaving_index(torch.stack([torch.tensor(s) for s in scores]), window, 64)
    for layer in range(model.config.num_hidden_layers):
        for head in range(model.config.num_key_value_heads):
            kept = inspection.kept[layer][head]
            assert kept.positions == (leaving[layer, head] == length).nonzero().flatten().tolist()
            assert np.allclose(kept.scores, np.array(scores[layer][head])[kept.positions], rtol=1e-3)


@torch.no_grad()
def read_scores(engine, ids, window):
    """The score of every key [L, K, T], when attention sees those of the window alone."""
    model = build_model(keep_window_size=window)
    values = []
    for layer in model.model.layers:
        layer.self_attn.v_proj.register_forward_hook(lambda module, inputs, output: values.append(output))
    model(torch.tensor([ids]))
    found = []
    for layer, value in zip(model.model.layers, values, strict=True):
        found.append(layer.self_attn._compute_scores(value)[0].tolist())
    return found


def test_an_embedding_is_the_mean_of_the_last_hidden_states(make_engine, monkeypatch):
    monkeypatch.setattr(Embedder, "chunk_size", 7)
    engine, ids = make_engine(keep_window_size=8), distinct_tokens(40, 97).tolist()
    with torch.no_grad():
        expected = build_model(keep_window_size=8).model(torch.tensor([ids])).last_hidden_state[0].mean(0)
    found = engine.embed(ids)
    assert found.dtype == np.float32 and np.allclose(found, expected, atol=1e-4)
    assert np.array_equal(engine.embed(ids), found)


def test_prompt_and_answer_are_scored_in_one_request(make_engine, tiny_tokenizer):
    engine = make_engine(tokenizer=tiny_tokenizer, vocab_size=len(tiny_tokenizer))
    ids = engine.encode("Ada lives in")
    plain = list(engine.stream(ids, **SETTINGS))
    request = engine.submit(ids, prompt_logprobs=2, logprobs=2, **SETTINGS)
    assert [token.id for token in engine.follow(request)] == plain
    assert request.num_cached_tokens == 0
    whole = engine.score(ids + plain, top=2)
    together = request.reader.tokens + request.output
    assert [token.id for token in together] == [token.id for token in whole]
    assert np.allclose([t.logprob for t in together[1:]], [t.logprob for t in whole[1:]], atol=1e-3)
    echo = engine.submit(ids, prompt_logprobs=2, max_new_tokens=0)
    assert not list(engine.follow(echo)) and echo.finish_reason == "length"
    assert [t.logprob for t in echo.reader.tokens] == pytest.approx([t.logprob for t in request.reader.tokens])


def test_a_prompt_may_be_as_long_as_the_model_if_nothing_follows(make_engine):
    engine, ids = make_engine(max_length=24), distinct_tokens(24, 97).tolist()
    assert len(engine.score(ids)) == 24 and engine.embed(ids).shape == (64,)
    with pytest.raises(UserError, match="takes 24 with the answer"):
        engine.submit(ids)
    with pytest.raises(UserError, match=r"takes 24\. "):
        engine.score([*ids, 1])
    for call in (engine.score, engine.inspect, engine.embed):
        with pytest.raises(UserError, match="prompt is empty"):
            call([])
    with pytest.raises(UserError, match="top=-1"):
        engine.score(ids, top=-1)


def test_a_prompt_without_answer_is_computed_for_the_next_one(make_engine):
    engine, ids = make_engine(), distinct_tokens(20, 97).tolist()
    assert engine.generate_batch([]) == []
    assert not list(engine.stream(ids, max_new_tokens=0))
    request = engine.submit([*ids, 5], **SETTINGS)
    list(engine.follow(request))
    assert request.num_cached_tokens == 20
    known = list(engine.scheduler.prefix_cache.entries)
    engine.score([7, *ids])
    assert list(engine.scheduler.prefix_cache.entries) == known


def test_reading_disturbs_no_other_request_and_takes_one_chunk_a_step(make_engine, monkeypatch):
    monkeypatch.setattr(Scorer, "chunk_size", 8)
    monkeypatch.setattr(Embedder, "chunk_size", 8)
    ids, text = distinct_tokens(20, 97).tolist(), distinct_tokens(90, 97, seed=3).tolist()
    expected = list(make_engine(keep_window_size=16).stream(ids, max_new_tokens=40, ignore_eos=True))
    engine = make_engine(keep_window_size=16, num_slots=2)
    alone = engine.inspect(text, top=2), engine.embed(text)
    running = engine.submit(ids, max_new_tokens=40, ignore_eos=True)
    engine.scheduler.step()
    readings = [engine.prepare_reading(text, reader) for reader in (Scorer(2, with_keys=True), Embedder())]
    for request in readings:
        engine.scheduler.submit(request)
    steps = 0
    while readings[-1].finish_reason is None:
        before = len(running.output)
        engine.scheduler.step()
        steps += 1
        assert running.finish_reason or len(running.output) == before + 1
    assert steps == 24  # twelve chunks each
    assert list(engine.follow(running)) and running.output_ids == expected
    assert readings[0].reader.kept == alone[0].kept
    assert np.allclose(
        [t.logprob for t in readings[0].reader.tokens[1:]], [t.logprob for t in alone[0].tokens[1:]], atol=1e-4
    )
    assert np.allclose(readings[1].reader.embedding, alone[1], atol=1e-5)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["prefill", "compute_hidden", "read_keys", "clear", "move"])
def test_an_interruption_changes_nothing_that_is_read(make_engine, monkeypatch, name, after):
    monkeypatch.setattr(Scorer, "chunk_size", 8)
    text = distinct_tokens(40, 97, seed=3).tolist()
    engine = make_engine(keep_window_size=16, num_slots=2)
    inspection, embedding = engine.inspect(text, top=2), engine.embed(text)
    answer = list(engine.stream([5, 6], **SETTINGS))
    for number in (1, 2, 4, 7):
        engine.scheduler.prefix_cache.entries.clear()
        original, calls = getattr(engine.backend, name), []

        def broken(*args, original=original, calls=calls, number=number, **options):
            calls.append(name)
            if len(calls) == number and not after:
                raise KeyboardInterrupt
            result = original(*args, **options)
            if len(calls) == number and after:
                raise KeyboardInterrupt
            return result

        requests = [engine.prepare([5, 6], **SETTINGS)]
        requests += [engine.prepare_reading(text, r) for r in (Scorer(2, with_keys=True), Embedder())]
        for request in requests:
            engine.scheduler.submit(request)
        with monkeypatch.context() as patch:
            patch.setattr(engine.backend, name, broken)
            while any(request.finish_reason is None for request in requests):
                try:
                    engine.scheduler.step()
                except KeyboardInterrupt:
                    continue
        assert requests[0].output_ids == answer
        scorer, embedder = (request.reader for request in requests[-2:])
        assert all(request.error is None for request in requests)
        assert scorer.kept == inspection.kept and len(scorer.tokens) == 40
        assert [t.logprob for t in scorer.tokens[1:]] == pytest.approx(
            [t.logprob for t in inspection.tokens[1:]], abs=1e-4
        )
        assert np.allclose(embedder.embedding, embedding, atol=1e-5)


def test_a_reading_that_fails_or_is_cancelled_ends_alone(make_engine, monkeypatch):
    engine, text = make_engine(num_slots=2), distinct_tokens(40, 97).tolist()
    good = engine.prepare([5, 6], **SETTINGS)
    bad, late = engine.prepare_reading(text, Scorer()), engine.prepare_reading(text, Embedder())
    monkeypatch.setattr(bad.reader, "read", lambda *arguments: 1 / 0)
    for request in (good, bad, late):
        engine.scheduler.submit(request)
    with pytest.raises(ZeroDivisionError):
        list(engine.follow(bad))
    engine.cancel(late)
    list(engine.follow(good))
    assert good.error is None and late.finish_reason == "cancelled"
    assert not engine.scheduler.running and engine.scheduler.prefilling is None


def test_logits_that_are_not_finite_are_told(make_engine, monkeypatch):
    engine = make_engine()
    prefill = engine.backend.prefill
    monkeypatch.setattr(engine.backend, "prefill", lambda *arguments: prefill(*arguments) * np.nan)
    with pytest.raises(UserError, match="not finite"):
        engine.score([1, 2, 3])


def test_an_older_export_says_that_it_has_no_embeddings(make_backend, monkeypatch):
    backend = make_backend(build_model())
    engine = Engine(backend, None, [3], "the model")
    del backend.session.widths["hidden_states"]
    with pytest.raises(UserError, match="export the model again"):
        engine.embed([1, 2])
    with pytest.raises(UserError, match="export the model again"):
        backend.compute_hidden(0, np.array([1]))
    assert engine.score([1, 2]) and not engine.scheduler.waiting


def test_a_closed_engine_frees_its_memory_and_refuses_calls(make_engine):
    engine = make_engine()
    before = engine.nbytes
    list(engine.stream([1, 2, 3], **SETTINGS))
    assert engine.nbytes > before - 1 > 0
    stream = engine.stream([1, 2], **SETTINGS)
    next(stream)
    request = engine.prepare_reading([1, 2], Scorer())
    engine.scheduler.submit(request)
    engine.close()
    engine.close()
    assert engine.nbytes == 0 and request.finish_reason == "error"
    assert not hasattr(engine.backend, "session") and not hasattr(engine.backend, "model")
    for call in (lambda: list(stream), lambda: list(engine.follow(request)), lambda: engine.score([1])):
        with pytest.raises(UserError, match="was closed"):
            call()
    with pytest.raises(UserError, match="was closed"):
        list(engine.stream([1, 2], **SETTINGS))


def test_closing_within_a_step_is_refused(make_engine, monkeypatch):
    engine, refused = make_engine(), []
    prefill = engine.backend.prefill

    def close(*arguments, **options):
        with pytest.raises(UserError, match="within a step"):
            engine.close()
        refused.append(True)
        return prefill(*arguments, **options)

    monkeypatch.setattr(engine.backend, "prefill", close)
    assert len(engine.score([1, 2, 3])) == 3 and refused
