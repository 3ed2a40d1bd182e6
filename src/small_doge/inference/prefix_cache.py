"""The prefix cache: states of prompts and outputs already computed, from which later prompts start."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..utils.logging import get_logger
from .backend import Backend


logger = get_logger(__name__)

MAX_ENTRIES = 4


class PrefixCache:
    """Keeps copies of the most recently used slot states, by their token ids.

    Args:
        backend: whose slots are copied.
        name: name of the model, for log messages.
        max_entries: states that are kept; the least recently used one is dropped first.
    """

    def __init__(self, backend: Backend, name: str, max_entries: int = MAX_ENTRIES) -> None:
        self.backend = backend
        self.name = name
        self.max_entries = max_entries
        self.entries: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Count the bytes of the states."""
        return sum(state.nbytes for state in list(self.entries.values()))  # another thread may ask

    def load(self, slot: int, prompt_ids: Sequence[int]) -> int:
        """Start a slot with the longest cached prefix of a prompt, or empty.

        Returns:
            The number of tokens that the slot now holds. At least the prompt's last token is left to compute; two where that
            is possible, as attention rounds a single token differently than several.
        """
        best, num_cached = None, 0
        limit = self.backend.shareable_length
        for ids in self.entries if limit is None or len(prompt_ids) <= limit else ():
            shared = _count_shared(ids, prompt_ids[:-1])
            # A state can be truncated only while no key has been evicted from it.
            if len(ids) <= self.backend.keep_window_size:
                usable = min(shared, max(0, len(prompt_ids) - 2))
            else:
                usable = shared if shared == len(ids) else 0
            if usable > num_cached:
                best, num_cached = ids, usable
        if best is None:
            self.backend.clear(slot)
        else:
            self.entries.move_to_end(best)
            self.backend.load(slot, self.entries[best], num_cached)
        return num_cached

    def store(self, slot: int, ids: tuple[int, ...]) -> None:
        """Copy the state of a slot that holds these tokens, if others may start from it.

        A failure is logged: the copy only saves work.
        """
        limit = self.backend.shareable_length
        if limit is not None and len(ids) > limit:
            return
        try:
            state = self.backend.save(slot)
        except Exception as error:  # noqa: BLE001
            logger.warning("%s: a computed prompt could not be cached (%r)", self.name, error)
            return
        # A prefix of an entry without evicted keys can be cut from it, and needs no entry of its own.
        if len(ids) <= self.backend.keep_window_size:
            for known in [known for known in self.entries if ids[: len(known)] == known]:
                del self.entries[known]
        self.entries[ids] = state
        while len(self.entries) > self.max_entries:
            self.entries.popitem(last=False)


def _count_shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens at the beginning that two sequences share."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(np.asarray(first[:length]) != np.asarray(second[:length]))
    return int(differ[0]) if len(differ) else length
