"""Flower's own records, with contents as Flower's strategies exchange them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

serial = itertools.count(1)
"""Numbers that make records differ."""


def arrays(size: int) -> Any:
    """An array record of ``size`` bytes of values never used before."""
    values = np.random.default_rng().random(size // 4, dtype=np.float32)
    return ArrayRecord([values])


def instruction_content(size: int) -> Any:
    """What a ServerApp broadcasts: a model of ``size`` bytes and the round's config."""
    config = ConfigRecord({"server-round": next(serial), "lr": 0.1})
    return RecordDict({"arrays": arrays(size), "config": config})
