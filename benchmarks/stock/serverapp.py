"""The ServerApp's side of an exchange, by the stock client: flwr's own grid with a task's token.

The harness starts it, with the Python of the measured flwr, as
``python -m benchmarks.stock.serverapp '{"wire": …, "address": …, "certificate": …, "run_id": …}'``.
It gets its token as ``flower-superexec`` does and its input as ``flwr-serverapp`` does. Then it
obeys the commands ``start``, ``exchange`` and ``log``. It ends when its standard input does.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.proto.log_pb2 import PushLogsRequest

from benchmarks.stock.pipes import commands, reserve_stdout
from benchmarks.stock.records import instruction_content

_TASK_SECONDS = 60.0


class ServerApp:
    """A running task and its grid."""

    def __init__(self, wire: str, address: str, certificate: str | None, run_id: int) -> None:
        # Each module imports code that only the flwr of its wire has.
        over = importlib.import_module(f"benchmarks.stock.over_{wire.lower()}")
        roots = Path(certificate).read_bytes() if certificate else None
        token = over.claim_token(address, roots, run_id, _TASK_SECONDS)
        self._grid, self._calls = over.open_grid(address, roots, token)
        self._run_id = run_id

    def log(self, lines: int, interval: float) -> dict[str, object]:
        """Push ``lines`` log lines, one every ``interval`` seconds; return the push times."""
        pushed = []
        for number in range(lines):
            time.sleep(interval)
            pushed.append(time.monotonic())
            self._calls.PushLogs(PushLogsRequest(run_id=self._run_id, logs=[f"line {number}\n"]))
        return {"pushed": pushed}

    def exchange(
        self, nodes: list[int], size: int, timeout: float, group: str = "1"
    ) -> dict[str, object]:
        """Send one model of ``size`` bytes to ``nodes`` and time it until all have replied."""
        content = instruction_content(size)
        messages = [Message(content, node, "train", group_id=group) for node in nodes]
        start = time.monotonic()
        try:
            replies = list(self._grid.send_and_receive(messages, timeout=timeout))
        except KeyboardInterrupt:
            # flwr sends itself this signal when its task is no longer known.
            return {"unfinished": time.monotonic() - start, "why": "the ServerApp ended itself"}
        seconds = time.monotonic() - start
        if seconds > timeout and len(replies) < len(nodes):
            return {"unfinished": seconds, "why": f"{len(replies)} of {len(nodes)} replies"}
        lost = check_replies(replies, nodes, size)
        del replies, messages, content
        gc.collect()
        return {"seconds": seconds, "lost": lost}


def check_replies(replies: list[Any], nodes: list[int], size: int) -> list[str]:
    """Return the reasons of error replies, which the server gave in place of nodes' replies.

    Raises:
        ValueError: A reply is missing, cut short, not for this exchange or equal to another.
    """
    if len(replies) != len(nodes):
        raise ValueError(f"{len(replies)} replies from {len(nodes)} nodes")
    whole = [reply for reply in replies if not reply.has_error()]
    senders = {reply.metadata.src_node_id for reply in whole}
    if len(senders) != len(whole) or not senders <= set(nodes):
        raise ValueError("a node replied twice, or one that was not asked")
    arrays = [next(iter(reply.content["arrays"].values())).data for reply in whole]
    if any(len(array) < size // 4 * 4 for array in arrays):
        raise ValueError("a reply was cut short")
    if len({array[-64:] for array in arrays}) != len(arrays):
        raise ValueError("two nodes sent the same reply")
    return [str(reply.error.reason) for reply in replies if reply.has_error()]


def serve(arguments: Mapping[str, Any]) -> None:
    """Obey the commands on standard input until it ends."""
    answer = reserve_stdout()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    app: ServerApp | None = None
    for command in commands():
        do = command.pop("do")
        try:
            if app is None:
                app = ServerApp(**arguments)
            answer({} if do == "start" else getattr(app, do)(**command))
        # Any error that ends a stock client is the answer.
        except Exception as exc:
            answer({"error": f"{type(exc).__name__}: {exc}"})


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
