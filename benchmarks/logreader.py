"""How soon a log line is seen by who follows a run's log."""

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
        """Wait for as many lines; return the seconds from the push of each to its coming.

        Raises:
            TimeoutError: A line did not come.
        """
        with self._news:
            if not self._news.wait_for(lambda: len(self._seen) >= len(pushed), _PATIENCE):
                raise TimeoutError(f"{len(pushed) - len(self._seen)} lines did not come")
            return [self._seen[number] - at for number, at in enumerate(pushed)]

    def _follow(self) -> None:
        # What has not come when the stream breaks is missed by who waits for it.
        with suppress(grpc.RpcError, HTTPException, OSError):
            for text in self._log:
                self._note(text)

    def _note(self, text: str) -> None:
        now = time.monotonic()
        with self._news:
            for number in _LINE.findall(text):
                self._seen.setdefault(int(number), now)
            self._news.notify_all()
