"""Memory that PyTorch frees on a CPU stays with the process, which asks for it again in the next step."""

import ctypes
import os
import platform
from functools import cache

from .logging import get_logger


logger = get_logger(__name__)

SWITCH = "SMALL_DOGE_KEEP_MEMORY"
# Parameters of mallopt(3), and their values: blocks up to 1 GiB come from the heap, which grows by 256 MiB at a time and
# never shrinks.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
SETTINGS = {MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**28}
# Whoever sets one of these has chosen an allocator, or its settings.
OTHERS = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep large blocks that are freed, so that the next step need not fetch them page by page.

    Each step of training allocates the same large tensors. By default the C library gives each back to the system, and
    the first touch of every page of the next one is a page fault. Only where that library is glibc; `SMALL_DOGE_KEEP_MEMORY=0`,
    or settings of one's own (`LD_PRELOAD`, `GLIBC_TUNABLES`, `MALLOC_...`), leave all as it is.

    Returns:
        Whether it does.
    """
    if platform.libc_ver()[0] != "glibc" or os.environ.get(SWITCH) == "0":
        return False
    chosen = next((name for name in OTHERS if os.environ.get(name)), None)
    if chosen is not None:
        logger.info("%s is set: the allocator of memory is left as it is", chosen)
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, value) == 1 for name, value in SETTINGS.items())
