"""The thread that owns an engine: requests come from the event loop, tokens go back to it.

The event loop never waits for the engine. It hands over what to do as commands, which the thread carries out between two
steps of the scheduler, and after each step the thread hands the new tokens of all requests over in one call.
"""

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from ..inference import Engine, Request, Token
from ..utils.logging import get_logger
from .errors import ApiError


logger = get_logger(__name__)

T = TypeVar("T")


class TokenStream:
    """The tokens of one request, for the event loop that asked for it.

    Whoever stops reading before the end calls `cancel`.

    Attributes:
        request: the engine's request; the thread alone changes it.
        news: set whenever there is something to take.
        tokens: all tokens received so far.
        created: when the request was made, by `time.monotonic`.
        first_token: when its first token was received; None before.
        finish_reason: None while unfinished; then the request's, "timeout" or "shutdown".
    """

    def __init__(self, worker: "EngineWorker", request: Request, deadline: float, news: asyncio.Event) -> None:
        self.worker = worker
        self.request = request
        self.deadline = deadline
        self.news = news
        self.loop = asyncio.get_running_loop()
        self.tokens: list[Token] = []
        self.created = time.monotonic()
        self.first_token: float | None = None
        self.finish_reason: str | None = None
        self._num_taken = 0

    @property
    def is_done(self) -> bool:
        """Tell whether the request is finished and all of its tokens are taken."""
        return self.finish_reason is not None and self._num_taken == len(self.tokens)

    def take(self) -> list[Token]:
        """Return the tokens that came since the last call."""
        start, self._num_taken = self._num_taken, len(self.tokens)
        return self.tokens[start:]

    def check(self) -> None:
        """Raise what ended the request, unless it ended well.

        Raises:
            ApiError: the request took longer than the server permits, or the server is shutting down.
            Exception: whatever the request failed with.
        """
        if self.finish_reason == "error":
            raise self.request.error or RuntimeError("a request failed without an error")
        if self.finish_reason == "timeout":
            raise ApiError(
                504,
                f"the request took longer than the {self.worker.timeout:g} s that the server permits; ask for fewer "
                "tokens, or start the server with a larger --request-timeout",
                code="timeout",
            )
        if self.finish_reason == "shutdown":
            raise ApiError(503, "the server is shutting down", code="shutting_down")

    def cancel(self) -> None:
        """End the request and free its slot; nothing happens if it is finished."""
        if self.finish_reason is None:
            self.finish_reason = "cancelled"
            self.worker.run_soon(lambda: self.worker.engine.cancel(self.request))
            self.news.set()

    def receive(self, tokens: list[Token], finish_reason: str | None) -> None:
        """Take in new tokens, within the event loop."""
        if tokens and self.first_token is None:
            self.first_token = time.monotonic()
        self.tokens += tokens
        self.finish_reason = self.finish_reason or finish_reason
        self.news.set()


class EngineWorker:
    """Runs an engine in a thread of its own.

    Args:
        engine: the engine; nothing else may use it afterwards.
        max_waiting: requests that may wait for a slot; one more is refused.
        timeout: seconds that a request may take.

    Attributes:
        num_unfinished: requests that wait or run.
    """

    def __init__(self, engine: Engine, max_waiting: int, timeout: float) -> None:
        self.engine = engine
        self.max_waiting = max_waiting
        self.timeout = timeout
        self.num_unfinished = 0
        self._count_lock = threading.Lock()
        self._commands: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._streams: list[TokenStream] = []  # the thread's own
        self._durations: deque[float] = deque([1.0], maxlen=32)  # seconds of the last requests
        self._is_closing = self._has_ended = False
        self._thread = threading.Thread(target=self._run, name=f"engine {engine.name}", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Count the requests that have no slot yet."""
        return max(0, self.num_unfinished - self.engine.backend.num_slots)

    def submit(self, requests: list[Request]) -> list[TokenStream]:
        """Queue requests, all or none of them; within an event loop, which receives their tokens. They share their `news`.

        Raises:
            ApiError: too many requests are waiting.
        """
        with self._count_lock:
            room = self.engine.backend.num_slots + self.max_waiting - self.num_unfinished
            if self._is_closing:
                raise ApiError(503, "the server is shutting down", code="shutting_down")
            if len(requests) > room:
                seconds = self._estimate_wait()
                raise ApiError(
                    429,
                    f"{self.num_waiting} requests are waiting, and the server lets {self.max_waiting} wait; try again in "
                    f"{seconds} s",
                    code="queue_full",
                    headers={"Retry-After": str(seconds)},
                )
            deadline, news = time.monotonic() + self.timeout, asyncio.Event()
            streams = [TokenStream(self, request, deadline, news) for request in requests]
            self.num_unfinished += len(requests)
            self.run_soon(lambda: self._start(streams))
        return streams

    def run_soon(self, command: Callable[[], Any]) -> None:
        """Let the thread carry out a command before its next step."""
        self._commands.put(command)

    async def call(self, function: Callable[[], T]) -> T:
        """Let the thread call a function between two steps, and return what it returned or raise what it raised.

        Raises:
            ApiError: the thread has ended.
        """
        future: Future[T] = Future()

        def command() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 (it is raised where the call was made)
                future.set_exception(error)

        with self._count_lock:
            if self._has_ended:
                raise ApiError(503, "the server is shutting down", code="shutting_down")
            self.run_soon(command)
        return await asyncio.wrap_future(future)

    def close(self, grace: float) -> None:
        """Let running requests finish for up to `grace` seconds, end the others, and stop the thread."""
        with self._count_lock:
            self._is_closing = True
            self.shorten(grace)
        self._thread.join(grace + 10)

    def shorten(self, seconds: float) -> None:
        """Leave the requests that run or wait no more than some seconds."""
        deadline = time.monotonic() + seconds

        def shorten() -> None:
            for stream in self._streams:
                stream.deadline = min(stream.deadline, deadline)

        self.run_soon(shorten)

    def _estimate_wait(self) -> int:
        """Estimate the seconds until a place in the queue is free."""
        mean = sum(self._durations) / len(self._durations)
        return max(1, min(60, math.ceil(mean)))

    # Within the thread.

    def _run(self) -> None:
        while not self._may_end():
            try:
                self._carry_out_commands()
                if self._streams:
                    self._step()
                    self._deliver()
            except BaseException:
                logger.exception("the thread of %s failed, and goes on", self.engine.name)

    def _may_end(self) -> bool:
        """Tell whether there is nothing left to do; from then on nothing is taken in."""
        with self._count_lock:
            self._has_ended = self._is_closing and not self.num_unfinished and self._commands.empty()
            return self._has_ended

    def _step(self) -> None:
        """Advance all requests.

        The scheduler ends a request that raises, and raises nothing itself. What passes through it all the same, such as a
        panic of a library, leaves its slots torn: it gets one step to rebuild them, and then all requests end.
        """
        for attempt in ("is tried again", "ends all requests"):
            try:
                self.engine.scheduler.step()
                return
            except BaseException as error:
                logger.exception("a step of %s failed, and %s", self.engine.name, attempt)
                failure = RuntimeError(f"the engine failed: {error!r}")
        for stream in self._streams:
            if stream.request.finish_reason is None:
                stream.request.fail(failure)

    def _carry_out_commands(self) -> None:
        """Carry out all commands; wait for one if no request is unfinished."""
        try:
            while True:
                command = self._commands.get(block=not self._streams and not self._is_closing)
                try:
                    command()
                except BaseException:
                    logger.exception("a command to %s failed", self.engine.name)
        except queue.Empty:
            return

    def _start(self, streams: list[TokenStream]) -> None:
        self._streams += streams
        for stream in streams:
            try:
                self.engine.scheduler.submit(stream.request)
            except Exception as error:  # noqa: BLE001 (its reader is told)
                stream.request.fail(error)

    def _deliver(self) -> None:
        """Hand new tokens and ends over to the event loops, one call for each."""
        now = time.monotonic()
        news: dict[asyncio.AbstractEventLoop, list[tuple[TokenStream, list[Token], str | None]]] = {}
        going_on, durations = [], []
        for stream in self._streams:
            request = stream.request
            reason: str | None = request.finish_reason
            if reason is None and now > stream.deadline:
                self.engine.cancel(request)
                reason = "shutdown" if self._is_closing else "timeout"
            tokens = request.output[request.num_read :]
            request.num_read += len(tokens)
            if tokens or reason is not None:
                news.setdefault(stream.loop, []).append((stream, tokens, reason))
            if reason is None:
                going_on.append(stream)
            else:
                durations.append(now - stream.created)
        with self._count_lock:
            self._durations += durations
            self.num_unfinished -= len(durations)
        self._streams = going_on
        for loop, items in news.items():
            try:
                loop.call_soon_threadsafe(_receive_all, items)
            except RuntimeError:  # the loop is closed: nobody reads any more
                for stream, _, _ in items:
                    self.engine.cancel(stream.request)


def _receive_all(items: list[tuple[TokenStream, list[Token], str | None]]) -> None:
    """Give each stream what is new, within the event loop."""
    for stream, tokens, reason in items:
        stream.receive(tokens, reason)
