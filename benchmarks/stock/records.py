"""Flower's own records, with contents as Flower's strategies exchange them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

serial = itertools.count(1)
"""Numbers that make records differ."""


def arrays(size: int) -> Any:
    """Return an array record of ``size`` bytes of new random values."""
    values = np.random.default_rng().random(size // 4, dtype=np.float32)
    return ArrayRecord([values])


def instruction_content(size: int) -> Any:
    """Return the content of a ServerApp's broadcast: a model of ``size`` bytes and a config."""
    config = ConfigRecord({"server-round": next(serial), "lr": 0.1})
    return RecordDict({"arrays": arrays(size), "config": config})
