"""Log lines about strangers: once a minute for each, however often they connect."""

import time
from collections import OrderedDict

from flower_nats.logs import get_logger

log = get_logger(__name__)

_EVERY = 60.0
"""Seconds between two lines of one kind about one host."""

_HOSTS = 10_000

_last: OrderedDict[tuple[str, str], float] = OrderedDict()


def notice(host: str, event: str, **facts: object) -> None:
    """Log a warning about a host, unless it was logged within the last minute."""
    now = time.monotonic()
    if now - _last.get((host, event), float("-inf")) < _EVERY:
        return
    _last[(host, event)] = now
    _last.move_to_end((host, event))
    if len(_last) > _HOSTS:
        _last.popitem(last=False)
    log.warning(event, host=host, **facts)
