"""How a gateway uses memory.

Blocks of a few megabytes are kept for the next object, and what is free goes back to the system soon.
Left alone, glibc raises with each large block that is freed the size from which it maps blocks singly,
its heaps fragment, and a gateway that has moved a large model once keeps hundreds of megabytes for ever.
To map every block singly would cost a quarter of the time of such an exchange, for zeroed pages.
"""

import asyncio
import ctypes
import gc
from typing import Any

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_MAPPED_FROM = 16 * 1024 * 1024
"""Bytes from which a block is mapped singly: more than an object of a stock model has, which is 5 MB."""

_TRIM_INTERVAL = 5.0
"""Seconds between two times at which free memory goes back."""

_COLLECT_AFTER = 20_000
"""Objects from which cycles are looked for; there are few, and each look costs more than it finds."""


def collect_seldom() -> None:
    """Look for cyclic garbage less often, and never among what has been loaded so far."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


def set_up_allocator() -> None:
    """Set the allocator of this process; does nothing where it is not glibc's."""
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        # Every thread of gRPC would otherwise get a heap of its own.
        mallopt(_M_ARENA_MAX, 2)


async def return_freed_memory_forever() -> None:
    """Give free memory back now and then, until cancelled."""
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
