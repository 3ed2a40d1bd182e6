"""Processes that end with the one that started them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest


def run_and_kill(program):
    """Start a program that prints when its workers are there, kill it, and wait for its output pipe to close."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, start_new_session=True
    )
    workers = [psutil.Process(int(word)) for word in process.stdout.readline().split()]
    assert workers and all(worker.is_running() for worker in workers)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    started = time.monotonic()
    assert process.stdout.read() == b""  # returns only when nobody holds the pipe
    assert time.monotonic() - started < 20
    _, alive = psutil.wait_procs(workers, timeout=10)
    for worker in alive:
        worker.kill()
    assert not alive


@pytest.mark.parametrize("method", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()])
def test_workers_that_watch_their_parent_end_when_it_is_killed(method):
    run_and_kill(f"""
        import os, sys, time
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context
        from small_doge.utils.processes import end_with
        if __name__ == "__main__":
            pool = ProcessPoolExecutor(2, get_context({method!r}), initializer=end_with, initargs=(os.getpid(),))
            list(pool.map(abs, range(4)))
            print(*(child.pid for child in __import__("multiprocessing").active_children()), flush=True)
            time.sleep(60)
    """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_what_a_library_forks_inside_the_block_ends_and_what_it_forks_outside_is_left_alone():
    run_and_kill("""
        import multiprocessing, os, time
        from small_doge.utils.processes import forks_end_with_us
        context = multiprocessing.get_context("fork")
        with forks_end_with_us():
            manager = context.Manager()  # waits for ever by itself
        print(manager._process.pid, flush=True)
        time.sleep(60)
    """)
    from small_doge.utils import processes

    with processes.forks_end_with_us():
        assert processes._owner == os.getpid()
    assert processes._owner is None
