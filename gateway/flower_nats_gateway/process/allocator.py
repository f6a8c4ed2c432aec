"""The memory allocator of a gateway.

Blocks of a few megabytes are kept for the next object, and free memory is returned to the system
soon. By default, glibc raises the threshold for single mappings with each large block that is
freed. Its heaps fragment, and a gateway that has once moved a large model keeps hundreds of
megabytes for ever. Mapping every block singly would cost a quarter of the time of such an exchange,
for zeroed pages.
"""

import asyncio
import ctypes
import gc
from typing import Any

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_MAPPED_FROM = 16 * 1024 * 1024
"""Size in bytes from which a block is mapped singly: larger than an object of a stock model (5
MB)."""

_TRIM_INTERVAL = 5.0
"""Seconds between two returns of free memory."""

_COLLECT_AFTER = 20_000
"""Number of new objects that starts a search for cycles. There are few cycles, and a search costs
more than it frees."""


def collect_seldom() -> None:
    """Look for cyclic garbage less often, and never among the objects loaded so far."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


def set_up_allocator() -> None:
    """Configure the allocator of this process; does nothing without glibc."""
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        # Otherwise every thread of gRPC would get its own heap.
        mallopt(_M_ARENA_MAX, 2)


async def return_freed_memory_forever() -> None:
    """Return free memory to the system regularly, until cancelled."""
    trim = _glibc("malloc_trim")
    while True:
        await asyncio.sleep(_TRIM_INTERVAL)
        if trim is not None:
            await asyncio.to_thread(trim, 0)


def _glibc(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
