"""Train one model in several hospitals: one is slow, and one sometimes runs out of memory."""

import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

FEATURES = 12
TRUTH = np.linspace(-2.0, 2.0, FEATURES)

client = ClientApp()
server = ServerApp()


def patients(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of patients, and whether each is ill."""
    rng = np.random.default_rng(seed)
    known = rng.normal(0.1 * (seed % 7), 1.0, (number, FEATURES))
    return known, (known @ TRUTH + rng.normal(0, 1 + seed % 3, number) > 0).astype(float)


def loss_of(weights: np.ndarray, known: np.ndarray, ill: np.ndarray) -> float:
    risk = 1 / (1 + np.exp(-known @ weights))
    return float(-np.mean(ill * np.log(risk + 1e-9) + (1 - ill) * np.log(1 - risk + 1e-9)))


@client.train()
def train(message: Message, context: Context) -> Message:
    began = time.monotonic()
    seed, number = int(context.node_config["seed"]), int(context.node_config["patients"])
    at = int(message.content["config"]["server-round"])
    if at in (2, 4) and context.node_config["trouble"] == "memory":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    known, ill = patients(seed, number)
    [weights] = message.content["arrays"].to_numpy_ndarrays()
    for _ in range(20):
        risk = 1 / (1 + np.exp(-known @ weights))
        weights = weights - 0.05 * known.T @ (risk - ill) / number
    if context.node_config["trouble"] == "slow":
        time.sleep(8.0)
    metrics = {
        "num-examples": number,
        "train-loss": loss_of(weights, known, ill),
        "seconds": time.monotonic() - began,
    }
    content = {"arrays": ArrayRecord([weights]), "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    [weights] = message.content["arrays"].to_numpy_ndarrays()
    known, ill = patients(1000 + int(context.node_config["seed"]), 100)
    metrics = {"num-examples": 100, "eval-loss": loss_of(weights, known, ill)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    nodes = int(context.run_config["nodes"])
    known, ill = patients(2000, 500)

    def measure(_: int, arrays: ArrayRecord) -> MetricRecord:
        [weights] = arrays.to_numpy_ndarrays()
        right = (known @ weights > 0) == (ill > 0)
        return MetricRecord({"accuracy": float(np.mean(right))})

    FedAvg(fraction_evaluate=0.2, min_train_nodes=nodes, min_available_nodes=nodes).start(
        grid,
        ArrayRecord([np.zeros(FEATURES)]),
        num_rounds=int(context.run_config["num-server-rounds"]),
        evaluate_fn=measure,
    )
