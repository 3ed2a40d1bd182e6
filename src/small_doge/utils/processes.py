"""Worker processes that end with the process that started them, however that one ends."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


POLL_SECONDS = 0.5
# The process whose forks end with it, while `forks_end_with_us` is open in it.
_owner: int | None = None
_hook_is_set = False


def end_with(parent: int) -> None:
    """Watch the parent process from a thread, and end this process once the parent is gone.

    A parent that is killed can't tell its workers, which would wait for work for ever and hold memory and the output pipe.

    Args:
        parent: process id of the parent, as the parent knows it.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


@contextmanager
def forks_end_with_us() -> Iterator[None]:
    """Make every process that is forked inside the block end with this one, those of libraries too."""
    global _owner, _hook_is_set
    if not _hook_is_set and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_watch_after_fork)
        _hook_is_set = True
    before, _owner = _owner, os.getpid()
    try:
        yield
    finally:
        _owner = before


def _watch_after_fork() -> None:
    global _owner
    if _owner is not None:
        end_with(_owner)
        _owner = os.getpid()
