"""How a gateway uses memory: large blocks go back at once, and cycles are looked for seldom.

glibc raises, with each large block that is freed, the size from which it maps blocks singly (up to
32 MB). Objects of about 5 MB then come from its heaps, which fragment and never shrink: a gateway
that has moved a large model once would keep hundreds of megabytes for ever. A fixed size prevents it.
"""

import ctypes
import gc

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_MAPPED_FROM = 256 * 1024
"""Bytes from which a block is mapped singly."""

_COLLECT_AFTER = 20_000
"""Objects from which cycles are looked for; there are few, and each look costs more than it finds."""


def collect_seldom() -> None:
    """Look for cyclic garbage less often, and never among what has been loaded so far."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


def return_freed_memory() -> None:
    """Set the allocator of this process; does nothing where it is not glibc's."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
    # Every thread of gRPC would otherwise get a heap of its own.
    mallopt(_M_ARENA_MAX, 2)
