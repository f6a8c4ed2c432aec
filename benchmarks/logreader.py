"""The delay of log lines for a reader that follows a run's log."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from http.client import HTTPException

import grpc

_LINE = re.compile(r"^line (\d+)$", re.MULTILINE)
_PATIENCE = 60.0


class LogReader:
    """Follows a run's log and notes when each line ``line <number>`` came."""

    def __init__(self, log: Iterable[str]) -> None:
        self._log = log
        self._seen: dict[int, float] = {}
        self._news = threading.Condition()
        threading.Thread(target=self._follow, daemon=True).start()

    def delays(self, pushed: Sequence[float]) -> list[float]:
        """Wait for all pushed lines; return the seconds from each line's push to its arrival.

        Raises:
            TimeoutError: A line did not come.
        """
        with self._news:
            if not self._news.wait_for(lambda: len(self._seen) >= len(pushed), _PATIENCE):
                raise TimeoutError(f"{len(pushed) - len(self._seen)} lines did not come")
            return [self._seen[number] - at for number, at in enumerate(pushed)]

    def _follow(self) -> None:
        # Lines that have not come when the stream breaks make `delays` time out.
        with suppress(grpc.RpcError, HTTPException, OSError):
            for text in self._log:
                self._note(text)

    def _note(self, text: str) -> None:
        now = time.monotonic()
        with self._news:
            for number in _LINE.findall(text):
                self._seen.setdefault(int(number), now)
            self._news.notify_all()
