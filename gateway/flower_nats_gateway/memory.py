"""Give large blocks of memory back to the system as soon as they are free.

glibc raises, with each large block that is freed, the size from which it maps blocks singly (up to
32 MB). Objects of about 5 MB then come from its heaps, which fragment and never shrink: a gateway
that has moved a large model once would keep hundreds of megabytes for ever. A fixed size prevents it.
"""

import ctypes

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_MAPPED_FROM = 256 * 1024
"""Bytes from which a block is mapped singly."""


def return_freed_memory() -> None:
    """Set the allocator of this process; does nothing where it is not glibc's."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
    # Every thread of gRPC would otherwise get a heap of its own.
    mallopt(_M_ARENA_MAX, 2)
