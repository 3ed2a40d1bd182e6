"""Freed memory stays with the process, unless something else was chosen."""

import os
import platform
import subprocess
import sys

import pytest


PROGRAM = """
import resource
from small_doge.utils.allocator import keep_freed_memory
print(keep_freed_memory(), keep_freed_memory())
size = 2**26  # a name, so that the compiler does not make the block in advance
b"x" * size
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    b"x" * size
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the C library of GNU")


def count_faults(**variables):
    chosen = ("SMALL_DOGE_KEEP_MEMORY", "GLIBC_TUNABLES", "LD_PRELOAD")
    env = {name: value for name, value in os.environ.items() if name not in chosen} | variables
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    kept, faults = done.stdout.splitlines()
    return kept, int(faults), done.stderr


def test_blocks_that_are_allocated_again_cost_no_page_faults():
    pages = 8 * 2**26 // os.sysconf("SC_PAGE_SIZE")
    kept, faults, _ = count_faults()
    assert kept == "True True" and faults < pages / 20
    assert count_faults(SMALL_DOGE_KEEP_MEMORY="0")[0] == "False False"


def test_settings_of_ones_own_are_left_alone():
    kept, _, said = count_faults(GLIBC_TUNABLES="glibc.malloc.top_pad=131072")
    assert kept == "False False" and "GLIBC_TUNABLES is set" in said
