"""An app whose result is known in advance: what nodes answer, and how answers become the result.

In each round, the app sends every node a value and some ballast. A node answers with a value made
from the app's value and the node's number. Whatever faults there are, the result after a number of
rounds is right if and only if every instruction of every round has exactly one answer.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

_MODULUS = 2_147_483_647
BALLAST = 20_000
"""Size of the array in each message. The array makes a message consist of several objects."""


def question(round_number: int, value: int) -> RecordDict:
    """The content of a round's instructions, which is the same for all nodes, as in a broadcast."""
    return _content({"round": round_number, "value": value}, seed=round_number)


def answer(message: Message, number: int) -> RecordDict:
    """The content of the reply of the node with this number."""
    asked = message.content["config"]
    assert _is_whole(message, seed=int(asked["round"]))
    value = (int(asked["value"]) * 31 + number * 17 + 1) % _MODULUS
    return _content({"round": int(asked["round"]), "value": value, "number": number}, seed=number)


def read_answer(message: Message) -> tuple[int, int]:
    """Read a reply: the node's number and its value."""
    config = message.content["config"]
    assert _is_whole(message, seed=int(config["number"]))
    return int(config["number"]), int(config["value"])


def combine(values: Iterable[tuple[int, int]]) -> int:
    """Compute the next value from all nodes' answers."""
    value = 0
    for number, part in sorted(values):
        value = (value * 131 + number * 7 + part) % _MODULUS
    return value


def expected(numbers: Iterable[int], rounds: int) -> int:
    """The result of a run without faults."""
    numbers, value = list(numbers), 1
    for _ in range(rounds):
        value = combine((n, (value * 31 + n * 17 + 1) % _MODULUS) for n in numbers)
    return value


def _content(values: dict[str, int], seed: int) -> RecordDict:
    return RecordDict({"config": ConfigRecord(dict(values)), "ballast": _ballast(seed)})


def _ballast(seed: int) -> ArrayRecord:
    return ArrayRecord([np.full(BALLAST, seed, dtype=np.float64)])


def _is_whole(message: Message, seed: int) -> bool:
    (array,) = message.content["ballast"].to_numpy_ndarrays()
    return bool(array.shape == (BALLAST,) and (array == seed).all())
