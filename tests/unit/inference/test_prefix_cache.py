"""The prefix cache: a shared beginning is computed once, and changes nothing."""

import pytest

from small_doge.evaluation.scoring import ScoredText, score_texts
from small_doge.inference import Engine, TorchEngine

from .conftest import build_model, distinct_tokens, write_greedily


PROMPTS = [distinct_tokens(n, 97, seed=n).tolist() for n in (1, 20, 7, 33, 12, 5)]


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


def test_the_least_recently_used_entry_is_dropped_first(make_engine):
    engine = make_engine(keep_window_size=64)
    for prompt in ([1, 50], [2, 50], [3, 50], [4, 50], [1, 50, 51], [5, 50]):
        list(engine.stream(prompt, max_new_tokens=1, ignore_eos=True))
    # (1, 50) was used by (1, 50, 51), which contains it and takes its place; (2, 50) was not used for the longest time.
    assert list(engine.scheduler.prefix_cache.entries) == [(3, 50), (4, 50), (1, 50, 51), (5, 50)]


@pytest.mark.parametrize("chunk_size", [256, 8])
def test_a_prompt_gives_the_same_bits_wherever_the_cache_cuts_it(make_backend, chunk_size):
    def make():
        engine = Engine(make_backend(build_model(keep_window_size=64)), None, [3], "the model")
        engine.backend.chunk_size = chunk_size
        return engine

    def read(engine):
        options = {"max_new_tokens": 8, "temperature": 1.0, "seed": 3, "logprobs": 0, "ignore_eos": True}
        request = engine.submit(PROMPTS[3], **options)
        return [(token.id, token.logprob) for token in engine.follow(request)], request.num_cached_tokens

    alone, engine = read(make())[0], make()
    list(engine.stream([*PROMPTS[3][:20], 5], max_new_tokens=2, ignore_eos=True))
    assert read(engine) == (alone, 20)
    assert read(engine) == (alone, len(PROMPTS[3]) - 2)


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}


def make_dynamic_engine():
    """An engine whose frequencies change past 16 tokens."""
    return TorchEngine(build_model(rope_parameters=DYNAMIC, max_position_embeddings=16, keep_window_size=64), None)


def answer(engine, prompt, beside=()):
    """The first logits and the tokens of an answer, computed beside other requests."""
    others = [engine.submit(other, max_new_tokens=12, ignore_eos=True) for other in beside]
    request = engine.submit(prompt, max_new_tokens=8, ignore_eos=True, logprobs=3)
    tokens = [(token.id, pytest.approx(token.logprob, abs=1e-6)) for token in engine.follow(request)]
    for other in others:
        list(engine.follow(other))
    return tokens


@pytest.mark.parametrize("prompt", [PROMPTS[1], PROMPTS[4]], ids=["past the trained length", "grows past it"])
def test_a_dynamic_rope_turns_by_the_length_of_a_request_alone(prompt):
    expected = answer(make_dynamic_engine(), prompt)
    for first in ([PROMPTS[3]], [prompt], [prompt[:-1]], [prompt + PROMPTS[3]]):
        engine = make_dynamic_engine()
        for other in first:
            answer(engine, other)
        assert answer(engine, prompt) == expected
    assert answer(make_dynamic_engine(), prompt, beside=[PROMPTS[3], PROMPTS[2]]) == expected


def test_a_dynamic_rope_scores_a_text_by_its_own_length():
    texts = [ScoredText(tuple(prompt[:3]), tuple(prompt[3:])) for prompt in (PROMPTS[1], PROMPTS[3], PROMPTS[4])]
    texts.append(ScoredText(texts[1].context, (*texts[1].continuation[:15], 5, 6)))  # shares a beginning
    alone = [score_texts(make_dynamic_engine(), [text])[0] for text in texts]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        found = score_texts(make_dynamic_engine(), [texts[place] for place in order])
        for place, likelihood in zip(order, found, strict=True):
            assert likelihood.logprobs == pytest.approx(alone[place].logprobs, abs=1e-5)
