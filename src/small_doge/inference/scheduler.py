"""Continuous batching: which request is prefilled, decoded and finished in each step.

    waiting --admit--> prefilling --last chunk--> running --finish reason--> finished

Running requests occupy the slots 0 to n - 1 of the backend, so that one call decodes all of them; the request that is
being prefilled has slot n. Whoever waits for a token calls `step`, so requests read by several threads advance together.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..utils.errors import UserError
from .backend import Backend
from .prefix_cache import PrefixCache
from .request import Request


# Attention computes a multiple of so many rows at a time.
ROWS = 16


def choose_chunk(left: int, most: int) -> int:
    """Return how many of the tokens that are left of a prompt to compute next.

    ONNX Runtime's attention rounds a row that it computes alone differently: a single token, and the last one of a chunk
    that a block of rows does not cover. Where that can be avoided, logits do not depend on where a prompt is cut.
    """
    sizes = range(min(left, most), 0, -1)
    return next((size for size in sizes if size % ROWS != 1 and left - size != 1), sizes[0])


class Scheduler:
    """Advances requests over the slots of a backend. Callers hold `lock` around `step` and around what they read.

    Args:
        backend: computes the model.
        name: name of the model, for messages.

    Attributes:
        waiting: submitted requests without a slot, the oldest first.
        prefilling: the request whose prompt is being computed, or None.
        running: requests that are being decoded; the slot of each is its index.
        num_prompt_tokens_computed: prompt tokens that went through the model; cached ones are not counted.
    """

    def __init__(self, backend: Backend, name: str) -> None:
        self.backend = backend
        self.name = name
        self.prefix_cache = PrefixCache(backend, name)
        self.lock = threading.RLock()
        self.waiting: deque[Request] = deque()
        self.prefilling: Request | None = None
        self.running: list[Request] = []
        self.num_prompt_tokens_computed = 0
        self.in_step = False  # slots and lists are being changed
        self.is_torn = False  # they are, or a change was interrupted
        self.is_closed = False

    def submit(self, request: Request) -> None:
        """Queue a request; one that was queued before stays where it is."""
        with self.lock:
            self._check_open()
            if not request.is_submitted:
                request.is_submitted = True
                self.waiting.append(request)

    def cancel(self, request: Request) -> None:
        """Finish a request now and free its slot. A finished one stays as it is."""
        with self.lock:
            if request.finish_reason is None:
                request.finish_reason = "cancelled"
            if self.in_step:  # called by the garbage collector, say; the step frees the slot itself
                return
            if self.is_torn:  # a step was interrupted, and the next one rebuilds the slots
                self._forget_finished()
                return
            try:
                with self._transaction():
                    self._free_finished()
            except Exception:  # noqa: BLE001 (the slots stay torn, and the next step rebuilds them)
                self._forget_finished()

    def step(self) -> None:
        """Decode one token of every running request, and prefill one chunk of the next prompt.

        A step is a transaction. A request that fails finishes alone, with its error. If the slots could not be arranged,
        or anything that is no `Exception` (such as Ctrl-C) passed through, the next step starts with `_recover`; if that
        fails too, all requests finish with the error.

        Raises:
            UserError: called by something that the step itself called, or after `close`.
        """
        self._check_not_in_step()
        self._check_open()
        was_torn = self.is_torn
        try:
            with self._transaction():
                # 1. Recover: after an interrupted step, rebuild every slot from the tokens of its request.
                if was_torn:
                    self._recover()
                # 2. Free the slots of requests that were cancelled since the last step.
                self._free_finished()
                # 3. Admit the oldest waiting request to a free slot, with the cached prefix of its prompt.
                self._admit()
                # 4. Decode: append a token to every running request.
                if self.running:
                    self._decode()
                # 5. Prefill a chunk of the admitted prompt; after the last chunk, append the first token.
                if self.prefilling is not None and self.prefilling.finish_reason is None:
                    self._prefill(self.prefilling)
                # 6. Free the slots of requests that this step finished.
                self._free_finished()
        except Exception as error:  # noqa: BLE001
            if was_torn:
                for request in self._list_unfinished():
                    request.fail(error)
            self._forget_finished()

    def close(self) -> bool:
        """Let all requests fail, and take no more; return whether it was open until now.

        Raises:
            UserError: called by something that a step called.
        """
        with self.lock:
            self._check_not_in_step()
            if self.is_closed:
                return False
            for request in self._list_unfinished():
                request.fail(UserError(f"{self.name} was closed"))
            self._forget_finished()
            self.prefix_cache.entries.clear()
            self.is_torn, self.is_closed = False, True
            return True

    def _check_open(self) -> None:
        """Raise a `UserError` after `close`."""
        if self.is_closed:
            raise UserError(f"{self.name} was closed; open the model again")

    def _check_not_in_step(self) -> None:
        """Raise a `UserError` within a step."""
        if self.in_step:
            raise UserError(
                f"{self.name} was asked from within a step of its own; ask after the step, or another engine"
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Mark slots and lists as torn until the change is complete."""
        self.is_torn = self.in_step = True
        try:
            yield
            self.is_torn = False
        finally:
            self.in_step = False

    def _admit(self) -> None:
        """Give the oldest waiting request the free slot, if there is one and no other prompt is being prefilled."""
        if self.prefilling is not None or not self.waiting or len(self.running) == self.backend.num_slots:
            return
        self.prefilling = request = self.waiting[0]  # for a moment in both places, so that no interruption loses it
        self.waiting.popleft()
        request.slot = len(self.running)
        try:
            if request.reader is None:
                num_cached = self.prefix_cache.load(request.slot, request.prompt_ids)
            else:
                num_cached = 0
                self.backend.clear(request.slot)
                request.reader.begin()
        except Exception as error:  # noqa: BLE001
            request.fail(error)
            return
        request.num_cached_tokens = request.num_prefilled_tokens = num_cached

    def _decode(self) -> None:
        """Append a token to every running request."""
        requests = list(self.running)
        last_ids = np.array([request.output[-1].id for request in requests])
        try:
            logits = self.backend.decode(len(requests), last_ids)
        except Exception as error:  # noqa: BLE001 (whatever it is, it finishes these requests alone)
            for request in requests:
                request.fail(error)
            return
        for request, row in zip(requests, logits, strict=True):
            request.append_token(row)

    def _prefill(self, request: Request) -> None:
        """Compute a chunk of a prompt; after the last one, let the request run."""
        slot, start = len(self.running), request.num_prefilled_tokens
        reader, size = request.reader, self.backend.chunk_size
        size = size if reader is None else min(size, reader.chunk_size)
        size = choose_chunk(len(request.prompt_ids) - start, size)
        chunk = np.array(request.prompt_ids[start : start + size])
        is_last = start + len(chunk) == len(request.prompt_ids)
        try:
            if reader is None:
                logits = self.backend.prefill(slot, chunk)
            else:
                logits = reader.read(self.backend, slot, chunk, is_last)
        except Exception as error:  # noqa: BLE001
            request.fail(error)
            return
        request.num_prefilled_tokens += len(chunk)
        self.num_prompt_tokens_computed += len(chunk)
        if not is_last:
            return
        # A state past the window can't be truncated to the prompt when the request finishes: copy it now.
        # One that nothing follows, likewise, if it is there to be gone on from.
        max_new_tokens = request.options.max_new_tokens
        if (
            len(request.prompt_ids) + max_new_tokens > self.backend.keep_window_size
            if max_new_tokens
            else reader is None
        ):
            self.prefix_cache.store(slot, tuple(request.prompt_ids))
        if max_new_tokens == 0:
            request.finish_reason = "length"
            return
        self.running.append(request)
        self.prefilling = None
        request.append_token(logits)

    def _free_finished(self) -> None:
        """Free the slots of finished requests."""
        for request in [request for request in self.waiting if request.finish_reason is not None]:
            self.waiting.remove(request)
        if self.prefilling is not None and self.prefilling.finish_reason is not None:
            self.backend.clear(len(self.running))
            self.prefilling.slot, self.prefilling = None, None
        for request in [request for request in self.running if request.finish_reason is not None]:
            self._finish(request)

    def _finish(self, request: Request) -> None:
        """Copy a finished request's state to the prefix cache, and let the last slots move up to its place."""
        slot, last = self.running.index(request), len(self.running) - 1
        if request.error is None:
            num_computed = self.backend.get_length(slot)  # the last token was sampled, and not computed
            self.prefix_cache.store(slot, tuple((request.prompt_ids + request.output_ids)[:num_computed]))
        self.running[slot] = self.running[last]
        self.running[slot].slot, request.slot = slot, None
        self.running.pop()
        if slot != last:
            self.backend.move(last, slot)
        if self.prefilling is not None:
            self.backend.move(last + 1, last)
            self.prefilling.slot = last
        else:
            self.backend.clear(last)

    def _recover(self) -> None:
        """Rebuild lists and slots after an interruption at any point, from the tokens of the requests.

        It may be interrupted itself, and the next step starts it over.
        """
        alive = self._list_unfinished()
        self.waiting = deque(request for request in alive if not request.output)
        self.running = [request for request in alive if request.output]
        self.prefilling = None
        for slot in range(self.backend.num_slots):
            self.backend.clear(slot)
        for request in self.waiting:
            request.slot = None
        for slot, request in enumerate(self.running):
            request.slot = slot
        for request in (*self.running, *self.waiting):
            try:
                request.restore()
                if request.slot is not None:
                    self._recompute(request.slot, (request.prompt_ids + request.output_ids)[:-1])
            except Exception as error:  # noqa: BLE001
                request.fail(error)

    def _recompute(self, slot: int, ids: Sequence[int]) -> None:
        """Compute tokens that a slot held before an interruption."""
        for start in range(0, len(ids), self.backend.chunk_size):
            self.backend.prefill(slot, np.array(ids[start : start + self.backend.chunk_size]))

    def _list_unfinished(self) -> list[Request]:
        """List the unfinished requests, each once: an interruption may leave one in two places."""
        prefilling = [] if self.prefilling is None else [self.prefilling]
        known = {id(request): request for request in (*self.running, *prefilling, *self.waiting)}
        return [request for request in known.values() if request.finish_reason is None]

    def _forget_finished(self) -> None:
        """Take finished requests off the lists, without touching the slots."""
        self.waiting = deque(request for request in self.waiting if request.finish_reason is None)
        self.running = [request for request in self.running if request.finish_reason is None]
        if self.prefilling is not None and self.prefilling.finish_reason is not None:
            self.prefilling = None
