"""The scheduler: requests together as alone, and none harmed by failures and interruptions of others at any point."""

import gc
import threading

import numpy as np
import pytest

from small_doge.inference import TorchEngine
from small_doge.inference.detokenizer import Detokenizer
from small_doge.inference.engine import Engine
from small_doge.inference.prefix_cache import PrefixCache
from small_doge.inference.request import Request
from small_doge.inference.sampling import Sampler
from small_doge.inference.scheduler import ROWS, Scheduler, choose_chunk
from small_doge.utils.errors import UserError

from .conftest import build_model, distinct_tokens


PROMPTS = [[5, 17, 3], [9, 2, 44, 8, 1], [60, 61, 62, 63, 64, 65, 66, 67, 68, 69]]
SETTINGS = {"max_new_tokens": 9, "ignore_eos": True}
LONG_PROMPTS = [distinct_tokens(n, 97, seed=n).tolist() for n in (1, 20, 7, 33, 12, 5)]


@pytest.mark.parametrize("most", [2, 8, 64, 256])
def test_no_chunk_has_a_row_that_attention_computes_alone(most):
    for total in range(1, 3 * most):
        sizes, left = [], total
        while left:
            sizes.append(choose_chunk(left, most))
            left -= sizes[-1]
        assert all(0 < size <= most for size in sizes)
        assert total == 1 or most == 2 or not any(size % ROWS == 1 for size in sizes), (total, sizes)
    assert choose_chunk(10**6, most) == most


def test_answers_computed_together_are_those_computed_alone(make_engine):
    engine = make_engine(num_slots=3, keep_window_size=8)
    lengths = [5, 17, 9, 3, 12, 8]
    alone = [
        list(make_engine(keep_window_size=8).stream(prompt, max_new_tokens=length, ignore_eos=True))
        for prompt, length in zip(LONG_PROMPTS, lengths, strict=True)
    ]
    requests = [
        engine.submit(prompt, max_new_tokens=length, ignore_eos=True)
        for prompt, length in zip(LONG_PROMPTS, lengths, strict=True)
    ]
    together = [[token.id for token in engine.follow(request)] for request in requests]
    assert together == alone
    assert not engine.scheduler.running and engine.scheduler.prefilling is None


def test_answers_asked_for_from_several_threads_are_computed_together(make_engine):
    engine, results = make_engine(num_slots=4), {}
    expected = {
        i: list(make_engine().stream(p, max_new_tokens=20, ignore_eos=True)) for i, p in enumerate(LONG_PROMPTS)
    }

    def work(number):
        results[number] = list(engine.stream(LONG_PROMPTS[number], max_new_tokens=20, ignore_eos=True))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(LONG_PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == expected


def test_closing_a_stream_frees_its_slot_and_leaves_the_others_alone(make_engine):
    engine = make_engine(num_slots=3)
    streams = [engine.stream(prompt, max_new_tokens=30, ignore_eos=True) for prompt in LONG_PROMPTS[:5]]
    heads = [next(stream) for stream in streams[:3]]
    streams[0].close()
    streams[3].close()  # before it was asked for anything
    late = engine.submit(LONG_PROMPTS[5], max_new_tokens=30, ignore_eos=True)
    engine.cancel(late)  # before its prompt was begun
    assert late.finish_reason == "cancelled" and not engine.scheduler.waiting
    rest = list(streams[1])
    assert [heads[1], *rest] == list(make_engine().stream(LONG_PROMPTS[1], max_new_tokens=30, ignore_eos=True))
    assert len(list(streams[4])) == 30
    streams[2].close()
    assert len(late.output_ids) == 0
    assert not engine.scheduler.running and not engine.scheduler.waiting and engine.scheduler.prefilling is None


class Boom(Exception):
    """A fault of ours."""


def run_three(engine, failing=()):
    """Tokens of three requests, with text, sampled by chance, or what each raised; whatever breaks is tried again."""
    requests = [engine.submit(p, **SETTINGS, temperature=1.0, seed=4, repetition_penalty=1.2) for p in PROMPTS]
    found = []
    for request in requests:
        tokens = []
        while True:
            try:
                while request.num_read < len(request.output) or request.finish_reason is None:
                    with engine.scheduler.lock:
                        while request.num_read == len(request.output) and request.finish_reason is None:
                            engine.scheduler.step()
                        if request.num_read < len(request.output):
                            tokens.append(request.output[request.num_read])
                            request.num_read += 1
                break
            except KeyboardInterrupt:
                continue
        found.append(([t.id for t in tokens], "".join(t.text for t in tokens), request.finish_reason))
    engine.cancel(requests[0])
    assert not engine.scheduler.running and not engine.scheduler.waiting and engine.scheduler.prefilling is None
    return found


PLACES = {
    "backend": ("clear", "move", "prefill", "decode", "save", "load", "get_length"),
    "request": ("append_token", "restore"),
    "sampler": ("sample", "accept", "_pick", "replay"),
    "text": ("push", "finish"),
    "prefix cache": ("load", "store"),
    "scheduler": (
        "_admit",
        "_prefill",
        "_decode",
        "_finish",
        "_free_finished",
        "_recover",
        "_recompute",
    ),
}


def break_at(monkeypatch, engine, place, name, number, error, after):
    """Raise before or after the n-th call of a function."""

    owner = {
        "backend": type(engine.backend),
        "request": Request,
        "sampler": Sampler,
        "text": Detokenizer,
        "prefix cache": PrefixCache,
        "scheduler": Scheduler,
    }
    original, calls = getattr(owner[place], name), []

    def broken(self, *args, **kwargs):
        calls.append(name)
        if len(calls) == number and not after:
            raise error
        result = original(self, *args, **kwargs)
        if len(calls) == number and after:
            raise error
        return result

    monkeypatch.setattr(owner[place], name, broken)
    return calls


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("place", "name"), [(place, name) for place, names in PLACES.items() for name in names])
def test_an_interruption_at_any_point_changes_no_answer(engine, monkeypatch, place, name, after):
    expected = run_three(engine)
    for number in (1, 2, 3, 5, 8, 13, 21):
        engine.scheduler.prefix_cache.entries.clear()
        with monkeypatch.context() as patch:
            calls = break_at(patch, engine, place, name, number, KeyboardInterrupt(), after)
            if name in ("restore", "replay", "_recover", "_recompute"):  # called after another interruption alone
                break_at(patch, engine, "backend", "decode", 3, KeyboardInterrupt(), True)
            assert run_three(engine) == expected, (name, number)
        if len(calls) < number:
            break


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("place", "name"), [("sampler", "sample"), ("text", "push"), ("backend", "prefill")])
def test_a_failing_answer_ends_alone(engine, monkeypatch, place, name, after):
    expected = run_three(engine)
    for number in (1, 3, 8):
        engine.scheduler.prefix_cache.entries.clear()
        engine.backend.decode = lambda count, tokens: np.stack(
            [logits_of(engine.backend, slot, tokens) for slot in range(count)]
        )
        with monkeypatch.context() as patch:
            break_at(patch, engine, place, name, number, Boom("a fault"), after)
            found = run_three(engine)
        failed = [index for index, request in enumerate(found) if request[2] == "error"]
        assert len(failed) <= (1 if place != "backend" else 2) and failed
        assert all(found[index] == expected[index] for index in range(3) if index not in failed)


def logits_of(backend, slot, tokens):
    return backend.prefill(slot, tokens[slot : slot + 1])


def test_what_ended_an_answer_is_raised_to_its_own_follower(engine, monkeypatch):
    good, bad = engine.submit(PROMPTS[0], **SETTINGS), engine.submit(PROMPTS[1], **SETTINGS)
    monkeypatch.setattr(bad.sampler, "sample", lambda logits: 1 / 0)
    assert len(list(engine.follow(good))) == 9
    with pytest.raises(ZeroDivisionError):
        list(engine.follow(bad))


def test_an_abandoned_answer_frees_its_slot_even_if_it_is_collected_within_a_step(engine, monkeypatch):
    expected = list(engine.stream(PROMPTS[1], **SETTINGS))
    endless = {**SETTINGS, "max_new_tokens": 100_000, "ignore_eos": True}  # else it would soon end by itself
    streams = [engine.stream_tokens(PROMPTS[0], **endless)]
    next(streams[0])
    step = engine.backend.decode

    def collect(*args):
        streams.clear()
        gc.collect()
        return step(*args)

    monkeypatch.setattr(engine.backend, "decode", collect)
    assert list(engine.stream(PROMPTS[1], **SETTINGS)) == expected
    assert not engine.scheduler.running and engine.scheduler.prefilling is None


def test_the_same_holds_on_onnx_runtime(make_backend):
    engine = Engine(make_backend(build_model(), num_slots=2), None, [3], "the model")
    expected = [list(engine.stream(p, **SETTINGS)) for p in PROMPTS]
    real, calls = engine.backend.decode, []

    def interrupt(*args):
        calls.append(1)
        result = real(*args)
        if len(calls) in (2, 5, 6):
            raise KeyboardInterrupt
        return result

    engine.backend.decode = interrupt
    requests = [engine.submit(p, **SETTINGS) for p in PROMPTS]
    while any(request.finish_reason is None for request in requests):
        try:
            with engine.scheduler.lock:
                engine.scheduler.step()
        except KeyboardInterrupt:
            continue
    assert [request.output_ids for request in requests] == expected and len(calls) > 6


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("name", PLACES["backend"])
def test_a_backend_that_fails_never_raises_the_error_of_one_answer_to_another(engine, monkeypatch, name, lasting):
    list(engine.stream(PROMPTS[0], **SETTINGS))
    prompts = [[*PROMPTS[0], 7], *PROMPTS[1:]]  # the first goes on from a saved state
    expected = [list(TorchEngine(engine.backend.model).stream(prompt, **SETTINGS)) for prompt in prompts]
    original, calls = getattr(engine.backend, name), []

    def broken(*args):
        calls.append(name)
        if lasting or len(calls) == 1:
            raise MemoryError(name)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(engine.backend, name, broken)
        requests = [engine.submit(prompt, **SETTINGS) for prompt in prompts]
        for request, tokens in zip(requests, expected, strict=True):
            try:
                assert [token.id for token in engine.follow(request)] == tokens
            except MemoryError:
                assert request.finish_reason == "error"
            else:
                assert request.finish_reason == "length"
    assert calls
    if name in ("save", "get_length", "move") and not lasting:  # no request needs these to be right
        assert all(request.finish_reason == "length" for request in requests)
    assert [list(engine.stream(prompt, **SETTINGS)) for prompt in prompts] == expected
    assert not engine.scheduler.running and not engine.scheduler.waiting and engine.scheduler.prefilling is None


def test_a_call_from_within_a_step_is_refused_and_changes_nothing(engine, monkeypatch):
    expected = list(engine.stream(PROMPTS[0], **SETTINGS))
    request, refused = engine.submit(PROMPTS[0], **SETTINGS), []
    draw = request.sampler.sample

    def call_again(logits):
        with pytest.raises(UserError, match="within a step"):
            list(engine.stream(PROMPTS[1], **SETTINGS))
        refused.append(True)
        return draw(logits)

    monkeypatch.setattr(request.sampler, "sample", call_again)
    assert [token.id for token in engine.follow(request)] == expected and len(refused) == 9
    assert not engine.scheduler.running and not engine.scheduler.waiting and engine.scheduler.prefilling is None


def test_slots_are_those_of_running_and_prefilled_requests(engine):
    requests = [
        engine.submit(prompt, max_new_tokens=n, ignore_eos=True) for n, prompt in zip((4, 9, 6), PROMPTS, strict=True)
    ]
    scheduler, seen = engine.scheduler, set()
    while any(request.finish_reason is None for request in requests):
        scheduler.step()
        assert [request.slot for request in scheduler.running] == list(range(len(scheduler.running)))
        if scheduler.prefilling is not None:
            assert scheduler.prefilling.slot == len(scheduler.running)
        seen |= {request.slot for request in requests}
    assert seen == {0, 1, None} and not any(request.slot for request in requests)
