"""What a request may hold, and what none can do to the others: bad options, failures and interruptions at any point."""

import gc
from dataclasses import fields

import numpy as np
import pytest
import torch
from tests.conftest import build_tiny

from small_doge.inference import TorchEngine, open_engine
from small_doge.inference.engine import Engine
from small_doge.inference.sampling_options import SamplingOptions
from small_doge.utils.errors import UserError

from .conftest import build_model


PROMPTS = [[5, 17, 3], [9, 2, 44, 8, 1], [60, 61, 62, 63, 64, 65, 66, 67, 68, 69]]
SETTINGS = {"max_new_tokens": 9, "ignore_eos": True}
WRONG = {
    "object": object(),
    "text": "x",
    "bytes": b"x",
    "nan": float("nan"),
    "inf": float("inf"),
    "minus inf": float("-inf"),
    "minus one": -1,
    "half": 0.5,
    "huge": 10**400,
    "yes": True,
    "none": None,
    "list": [object()],
    "nested": [[1]],
    "list of nan": [float("nan")],
    "map": {"a": "b"},
    "map of nan": {1: float("nan")},
    "map of inf": {1: float("-inf")},
    "map to none": {1: None},
    "numpy nan": np.float32("nan"),
    "array": np.zeros((2, 2)),
    "tensor": torch.zeros(3),
    "set": {1.5},
    "function": len,
}


@pytest.fixture
def engine(tiny_tokenizer):
    return TorchEngine(build_tiny(vocab_size=len(tiny_tokenizer)), tiny_tokenizer, num_slots=2)


@pytest.mark.parametrize("name", [f.name for f in fields(SamplingOptions)])
def test_every_option_of_every_wrong_kind_is_refused_or_harmless(engine, name):
    expected = list(engine.stream(PROMPTS[0], **SETTINGS))
    for kind, value in WRONG.items():
        try:
            request = engine.submit(PROMPTS[1], **{**SETTINGS, name: value})
        except UserError as error:
            assert name in str(error), kind
        else:
            small = request.options.max_new_tokens < 10
            assert all(token.id >= 0 for token in engine.follow(request)) if small else engine.cancel(request) is None
        assert list(engine.stream(PROMPTS[0], **SETTINGS)) == expected, kind
    assert not engine.scheduler.running and not engine.scheduler.waiting and engine.scheduler.prefilling is None


RIGHT = {
    "max_new_tokens": [np.int64(3), torch.tensor(3), np.array(3)],
    "temperature": [np.float32(0.5), torch.tensor(0.5), 1],
    "stop_token_ids": [np.array([3, 4]), torch.tensor([3]), (1, 2), {5}, None],
    "ignore_eos": [np.bool_(True)],
    "seed": [np.uint32(7), 2**63],
    "logit_bias": [{"5": 1}, {np.int64(5): np.float32(1)}, None],
    "json_schema": ["true", {}],
    "stop": ["a", ["a"], None],
}


@pytest.mark.parametrize("name", RIGHT)
def test_numbers_of_other_libraries_and_of_json_are_numbers(engine, name):
    for value in RIGHT[name]:
        assert list(engine.stream(PROMPTS[0], **{"max_new_tokens": 3, name: value}))


@pytest.mark.parametrize("prompt", ["text", [1.5], [True], [[1, 2]], [None], ["1"], 5, {1: 2}, np.zeros((2, 2)), b"a"])
def test_a_prompt_that_is_no_list_of_tokens_is_refused(engine, prompt):
    with pytest.raises(UserError, match="prompt"):
        engine.stream(prompt)


@pytest.mark.parametrize("prompt", [np.array([1, 2]), torch.tensor([1, 2]), (1, 2), range(1, 3), iter([1, 2])])
def test_a_prompt_may_be_any_flat_sequence(engine, prompt):
    assert engine.submit(prompt).prompt_ids == [1, 2]


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_slots_and_threads_are_checked(tiny_tokenizer, number):
    with pytest.raises(UserError, match="num_slots=.* must be a whole number of at least 1"):
        TorchEngine(build_tiny(), num_slots=number)
    for name in ("num_slots", "threads"):
        with pytest.raises(UserError, match=f"{name}=.* must be a whole number of at least 1"):
            open_engine("nowhere", **{name: number})


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
        "_append_token",
        "_finish",
        "_free_finished",
        "_recover",
        "_recompute",
    ),
}


def break_at(monkeypatch, engine, place, name, number, error, after):
    """Raise before or after the n-th call of a function."""
    from small_doge.inference.detokenizer import Detokenizer
    from small_doge.inference.prefix_cache import PrefixCache
    from small_doge.inference.request import Request
    from small_doge.inference.sampling import Sampler
    from small_doge.inference.scheduler import Scheduler

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
    streams = [engine.stream_tokens(PROMPTS[0], **SETTINGS)]
    next(streams[0])
    step = engine.backend.decode

    def collect(*args):
        streams.clear()
        gc.collect()
        return step(*args)

    monkeypatch.setattr(engine.backend, "decode", collect)
    assert list(engine.stream(PROMPTS[1], **SETTINGS)) == expected
    assert not engine.scheduler.running and engine.scheduler.prefilling is None


def test_a_grammar_and_options_that_leave_no_token_are_an_error(engine):
    with pytest.raises(UserError, match="json_schema"):
        engine.submit(PROMPTS[0], json_schema={"type": "nonsense"})
    assert list(engine.stream(PROMPTS[0], logit_bias={t: -1e6 for t in range(512)}, **SETTINGS))


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
