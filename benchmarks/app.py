"""The Flower apps the benchmark submits, as FABs in memory."""

from __future__ import annotations

from harness.fabs import pack

_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "nothing"
version = "1.0.0"
description = "Exchanges a few bytes and trains nothing"
license = "Apache-2.0"
dependencies = ["flwr"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "benchmark"

[tool.flwr.app.components]
serverapp = "nothing.server:app"
clientapp = "nothing.client:app"

[tool.flwr.app.config]
num-server-rounds = 3
"""

_CLIENT = """\
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 1, "loss": 0.0})
    content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 1, "loss": 0.0})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
"""

_SERVER = """\
import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    rounds = int(context.run_config["num-server-rounds"])
    model = ArrayRecord([np.zeros(256, dtype=np.float32)])
    FedAvg(min_available_nodes=2).start(grid=grid, initial_arrays=model, num_rounds=rounds)
"""


def nothing_fab() -> bytes:
    """Return an app of three rounds that trains nothing: six exchanges by Flower's own FedAvg."""
    return pack(
        {
            "pyproject.toml": _PYPROJECT,
            "nothing/__init__.py": "",
            "nothing/client.py": _CLIENT,
            "nothing/server.py": _SERVER,
        }
    )
