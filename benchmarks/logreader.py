"""How soon a log line is seen: pushed as by a stock ServerApp, followed as by ``flwr log --stream``."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import grpc
from flwr.common.constant import CONN_RECONNECT_INTERVAL, CONN_REFRESH_PERIOD
from flwr.proto.control_pb2 import StreamLogsRequest

_LINE = re.compile(r"^line (\d+)$", re.MULTILINE)
_PATIENCE = 60.0


class LogReader:
    """Follows a run's log and notes when each line ``line <number>`` came."""

    def __init__(self, stub: Any, run_id: int) -> None:
        self._stub = stub
        self._run_id = run_id
        self._seen: dict[int, float] = {}
        self._news = threading.Condition()
        threading.Thread(target=self._follow, daemon=True).start()

    def delays(self, pushed: dict[int, float]) -> list[float]:
        """Wait for these lines; return the seconds from the push of each to its coming.

        Raises:
            TimeoutError: A line did not come.
        """
        with self._news:
            if not self._news.wait_for(lambda: pushed.keys() <= self._seen.keys(), _PATIENCE):
                raise TimeoutError(f"{len(pushed) - len(self._seen)} lines did not come")
            return [self._seen[number] - at for number, at in pushed.items()]

    def _follow(self) -> None:
        position = 0.0
        while True:
            request = StreamLogsRequest(run_id=self._run_id, after_timestamp=position)
            try:
                for answer in self._stub.StreamLogs(request, timeout=CONN_REFRESH_PERIOD):
                    self._note(answer.log_output)
                    position = max(position, answer.latest_timestamp)
                return
            except grpc.RpcError as exc:
                if exc.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    return
            time.sleep(CONN_RECONNECT_INTERVAL)

    def _note(self, text: str) -> None:
        now = time.monotonic()
        with self._news:
            for number in _LINE.findall(text):
                self._seen.setdefault(int(number), now)
            self._news.notify_all()
