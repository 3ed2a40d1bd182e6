"""The thread that owns an engine: whatever a request does, the others get what the engine gives them alone."""

import asyncio
import math
import threading
import time
from contextlib import suppress
from dataclasses import fields

import pytest

from small_doge.inference import OnnxEngine, SamplingOptions
from small_doge.utils.errors import UserError
from small_doge.webui.errors import ApiError
from small_doge.webui.worker import EngineWorker


PROMPT = [5, 6, 7, 8]
PLAIN = SamplingOptions(max_new_tokens=6, temperature=1.0, seed=3)
EXTREMES = [
    *(None, -1, 0, 1, 2, 1e-300, 5e-324, 0.5, 1e6, 1e308, 2**31, 2**63, 2**64, 10**400, math.nan, math.inf, -math.inf),
    *(True, False, "", "x", "\ud800", "\x00", "a" * 70_000, "[[[", "start: /(/", "{}", '{"type": "nothing"}', b"x"),
    *(
        [],
        [0],
        [-1],
        [511],
        [512],
        ["a"],
        [[]],
        [None],
        {},
        {"0": 1e30},
        {"0": -1e6},
        {0: 1e6},
        {"x": 1},
        {0: math.nan},
    ),
    *(dict.fromkeys(range(512), -1e6), {"type": "object"}, {"a": {"b": []}}, object()),
]


class PanicException(BaseException):
    """What a panic of a library in Rust becomes: no `Exception`."""


@pytest.fixture
def make_worker(models_dir):
    """Make workers that are closed after the test."""
    workers = []

    def make(num_slots=4, max_waiting=64, timeout=60.0):
        engine = OnnxEngine(models_dir / "doge", num_slots, threads=1)
        workers.append(EngineWorker(engine, max_waiting, timeout))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close(0)
        assert not worker._thread.is_alive()


async def read(stream, count=None, what="id"):
    """Wait for a stream's end, or for some tokens of it."""
    while not stream.is_done and (count is None or len(stream.tokens) < count):
        stream.news.clear()
        if not stream.take() and not stream.is_done:
            await asyncio.wait_for(stream.news.wait(), 30)
    stream.check()
    return [getattr(token, what) for token in stream.tokens]


def submit(worker, sampling=PLAIN, prompt=PROMPT, **options):
    return worker.submit([worker.engine.prepare(prompt, sampling, **options)])[0]


async def settle(worker):
    """Wait until the worker has nothing to do."""
    for _ in range(3000):
        if not worker.num_unfinished:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{worker.num_unfinished} requests never end")


@pytest.fixture(scope="module")
def expected(models_dir):
    return list(OnnxEngine(models_dir / "doge", threads=1).stream(PROMPT, **vars(PLAIN)))


@pytest.mark.parametrize("option", [field.name for field in fields(SamplingOptions)])
def test_bad_and_extreme_values_of_an_option_touch_nobody_else(make_worker, expected, option):
    async def run():
        worker, started = make_worker(), []
        beside = submit(worker)
        for value in EXTREMES:
            try:
                started.append(submit(worker, **{"max_new_tokens": 4, "seed": 1, option: value}))
            except UserError:
                continue
        for stream in started:
            with suppress(UserError):
                await read(stream, 1)
            stream.cancel()
        assert await read(beside) == expected
        await settle(worker)
        assert await read(submit(worker)) == expected

    asyncio.run(run())


@pytest.mark.parametrize("error", [ValueError("broken"), MemoryError(), PanicException("broken"), RecursionError()])
@pytest.mark.parametrize("place", ["sampler.sample", "sampler.accept", "detokenizer.push", "detokenizer.finish"])
def test_request_that_raises_ends_alone(make_worker, expected, place, error):
    def fail(*arguments):
        raise error

    async def run():
        worker = make_worker()
        request = worker.engine.prepare(PROMPT, PLAIN)
        part, method = place.split(".")
        setattr(getattr(request, part), method, fail)
        beside, stream = submit(worker), worker.submit([request])[0]
        with pytest.raises((type(error), RuntimeError)):
            await read(stream)
        assert await read(beside) == expected
        await settle(worker)

    asyncio.run(run())


@pytest.mark.parametrize("error", [ValueError("broken"), PanicException("broken"), SystemExit(1), MemoryError()])
@pytest.mark.parametrize("method", ["prefill", "decode", "clear", "move"])
def test_backend_that_fails_for_a_while_serves_again(make_worker, expected, method, error, monkeypatch):
    async def run():
        worker = make_worker()
        calls, real = [], getattr(worker.engine.backend, method)

        def fail(*arguments):
            calls.append(None)
            if len(calls) <= 3:
                raise error
            return real(*arguments)

        monkeypatch.setattr(worker.engine.backend, method, fail)
        for stream in [submit(worker) for _ in range(4)]:
            with suppress(ValueError, MemoryError, RuntimeError):
                assert await read(stream) == expected
        await settle(worker)
        calls[:] = [None] * 9
        assert await read(submit(worker)) == expected

    asyncio.run(run())


def test_cancelled_requests_free_their_places_in_every_state(make_worker, expected):
    async def run():
        worker = make_worker(num_slots=2)
        long = SamplingOptions(max_new_tokens=100_000, ignore_eos=True, seed=0)
        running, prefilling = submit(worker, long), submit(worker, long, prompt=[5] * 3000)
        waiting = [submit(worker, long) for _ in range(3)]
        assert await read(running, 2)
        assert not waiting[-1].tokens
        for stream in (waiting[0], prefilling, running, waiting[2], waiting[2], waiting[1]):
            stream.cancel()
            assert await read(stream) == [token.id for token in stream.tokens]
        finished = submit(worker)
        assert await read(finished) == expected
        finished.cancel()
        await settle(worker)
        assert not worker.engine.scheduler.running and not worker.engine.scheduler.waiting

    asyncio.run(run())


def test_streams_of_a_closed_loop_are_ended(make_worker, expected):
    worker = make_worker(num_slots=1)

    async def leave():
        submit(worker, SamplingOptions(max_new_tokens=100_000, ignore_eos=True))
        submit(worker)

    asyncio.run(leave())
    asyncio.run(settle(worker))

    async def ask():
        return await read(submit(worker))

    assert asyncio.run(ask()) == expected


def test_tokens_that_nobody_takes_are_bounded_by_the_request(make_worker):
    async def run():
        worker = make_worker()
        stream = submit(worker, SamplingOptions(max_new_tokens=50, ignore_eos=True))
        await settle(worker)
        await asyncio.sleep(0.05)
        assert len(stream.tokens) == 50 and not stream.is_done

    asyncio.run(run())


def test_queue_takes_exactly_what_it_may_from_any_number_of_threads(make_worker):
    worker = make_worker(num_slots=2, max_waiting=5)
    taken, refused, ready = [], [], threading.Barrier(8)

    async def ask():
        requests = [worker.engine.prepare(PROMPT, max_new_tokens=100_000, ignore_eos=True) for _ in range(6)]
        ready.wait()
        for request in requests:
            try:
                taken.extend(worker.submit([request]))
            except ApiError as error:
                refused.append(error)
        ready.wait()
        for stream in taken:
            stream.cancel()

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 7 and len(refused) == 41
    assert {error.status for error in refused} == {429}
    assert all(1 <= int(error.headers["Retry-After"]) <= 60 for error in refused)
    asyncio.run(settle(worker))


def test_choices_are_taken_all_or_none(make_worker):
    async def run():
        worker = make_worker(num_slots=1, max_waiting=2)
        kept = submit(worker, SamplingOptions(max_new_tokens=100_000, ignore_eos=True))
        with pytest.raises(ApiError, match="waiting"):
            worker.submit([worker.engine.prepare(PROMPT, PLAIN) for _ in range(3)])
        assert worker.num_unfinished == 1
        streams = worker.submit([worker.engine.prepare(PROMPT, PLAIN) for _ in range(2)])
        kept.cancel()
        for stream in streams:
            assert len(await read(stream)) == 6
        await settle(worker)

    asyncio.run(run())


def test_requests_time_out_while_they_run_and_while_they_wait(make_worker, expected):
    async def run():
        worker = make_worker(num_slots=1, timeout=0.3)
        # Submitted together, both have the same deadline, so that the second never gets the slot of the first.
        endless = SamplingOptions(max_new_tokens=10**6, ignore_eos=True)
        streams = worker.submit([worker.engine.prepare(PROMPT, endless) for _ in range(2)])
        for stream in streams:
            with pytest.raises(ApiError, match="--request-timeout") as caught:
                await read(stream)
            assert caught.value.status == 504
        assert streams[0].tokens and not streams[1].tokens
        await settle(worker)
        assert await read(submit(worker)) == expected

    asyncio.run(run())


def test_closing_lets_requests_finish_for_a_while_and_then_ends_them(make_worker, expected):
    async def run():
        worker = make_worker()
        short, long = submit(worker), submit(worker, SamplingOptions(max_new_tokens=10**6, ignore_eos=True))
        start = time.monotonic()
        closing = asyncio.create_task(asyncio.to_thread(worker.close, 0.5))
        assert await read(short) == expected
        with pytest.raises(ApiError, match="shutting down"):
            await read(long)
        await closing
        assert 0.4 < time.monotonic() - start < 5
        with pytest.raises(ApiError, match="shutting down"):
            submit(worker)
        with pytest.raises(ApiError, match="shutting down"):
            await worker.call(lambda: None)

    asyncio.run(run())


def test_calls_run_between_steps_and_return_or_raise(make_worker):
    def fail():
        raise ValueError("broken")

    async def run():
        worker = make_worker()
        assert await worker.call(lambda: threading.current_thread().name) == worker._thread.name
        with pytest.raises(ValueError, match="broken"):
            await worker.call(fail)

    asyncio.run(run())


@pytest.mark.parametrize("what", ["id", "logprob"])
def test_each_of_many_streams_gets_what_the_engine_gives_it_alone_to_the_last_bit(make_worker, engine, what):
    async def run():
        worker = make_worker(num_slots=8)
        prompts = [[5 + number, *range(6, 6 + number % 7)] for number in range(32)]
        sampling = {"max_new_tokens": 20, "min_p": 0.01, "logprobs": 0}
        given = [{**sampling, "temperature": n % 3 * 0.7, "seed": n, "top_k": n % 5} for n in range(32)]
        streams = [submit(worker, None, prompt, **one) for prompt, one in zip(prompts, given, strict=True)]
        answers = await asyncio.gather(*(read(stream, what=what) for stream in streams))
        alone = [engine.stream_tokens(prompt, **one) for prompt, one in zip(prompts, given, strict=True)]
        assert answers == [[getattr(token, what) for token in tokens] for tokens in alone]

    asyncio.run(run())
