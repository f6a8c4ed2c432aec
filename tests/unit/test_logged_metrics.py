"""Numbers in the log of a ServerApp: those of stock strategies, and malformed ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, cast

import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import FLOWER_LOGGER
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from flower_nats.superlink.console.logged_metrics import EVALUATE, GLOBAL, TRAIN, Logged
from harness.messages import as_server_app


class ThreeNodes:
    """A grid for a strategy, with three nodes that answer each instruction."""

    def get_node_ids(self) -> Iterable[int]:
        return [1, 2, 3]

    def send_and_receive(self, messages: Iterable[Message], **_: Any) -> Iterable[Message]:
        for message in messages:
            numbers = MetricRecord({"loss": message.metadata.dst_node_id / 8, "num-examples": 5})
            message.metadata.__dict__["_src_node_id"] = 1
            content = {"metrics": numbers}
            if message.metadata.message_type.startswith("train"):
                content |= {"arrays": ArrayRecord()}
            yield Message(RecordDict(content), reply_to=message)


def test_what_a_stock_strategy_logs_is_read(caplog: pytest.LogCaptureFixture) -> None:
    def evaluate(at: int, _: ArrayRecord) -> MetricRecord:
        return MetricRecord({"it's so": 1e-7 * at, "list": [1.0], "nan": float("nan")})

    as_server_app(1)
    FLOWER_LOGGER.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO):
        FedAvg().start(cast(Grid, ThreeNodes()), ArrayRecord(), num_rounds=2, evaluate_fn=evaluate)
    FLOWER_LOGGER.removeHandler(caplog.handler)
    logged = Logged()
    # Lines arrive in pieces.
    text = "".join(f"\x1b[92mINFO \x1b[0m:      {line}\n" for line in caplog.messages).encode()
    for at in range(0, len(text), 100):
        logged.take(text[at : at + 100])

    assert logged.numbers == {
        (TRAIN, "loss"): {1: pytest.approx(0.25), 2: pytest.approx(0.25)},
        (EVALUATE, "loss"): {1: pytest.approx(0.25), 2: pytest.approx(0.25)},
        (GLOBAL, "it's so"): {0: 0.0, 1: 1e-7, 2: 2e-7},
        (GLOBAL, "nan"): {0: None, 1: None, 2: None},
    }


def test_what_servers_of_older_apps_log_is_read() -> None:
    logged = Logged()
    logged.take(
        b"INFO : initial parameters (loss, other metrics): 2.5, {'accuracy': 0.1}\n"
        b"INFO : [ROUND 1]\n"
        b"INFO : fit progress: (1, np.float64(0.5), {'accuracy': np.float32(0.75)}, 1.2)\n"
    )

    assert logged.numbers == {
        (GLOBAL, "loss"): {0: 2.5, 1: 0.5},
        (GLOBAL, "accuracy"): {0: 0.1, 1: 0.75},
    }


@pytest.mark.parametrize(
    "line",
    [
        b"Aggregated MetricRecord: {",
        b"Aggregated MetricRecord: {'a': __import__('os')}",
        b"Aggregated MetricRecord: {'a': 1.2.3e9999}",
        b"[ROUND " + b"9" * 100 + b"]",
        b"fit progress: (x, y, {})",
        b"Aggregated MetricRecord: {" + b"'" * 100_000,
        b"\xff\xfe MetricRecord: {'\xff",
    ],
)
def test_what_is_no_number_is_left_out(line: bytes) -> None:
    logged = Logged()
    logged.take(line + b"\nAggregated MetricRecord: {'after': 1.0}\n")

    assert {value for by in logged.numbers.values() for value in by.values()} <= {1.0, None}
    assert logged.numbers[TRAIN, "after"] == {0: 1.0}


def test_an_app_that_logs_numbers_without_end_fills_no_memory() -> None:
    logged = Logged()
    for at in range(30):
        names = ", ".join(f"'{at}-{name}': 1" for name in range(1_000))
        logged.take(f"Aggregated MetricRecord: {{{names}}}\n".encode())
    logged.take(b"x" * 10_000_000)

    assert len(logged.numbers) == 20_000
