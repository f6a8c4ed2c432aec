"""What a node does with a model that the server sends: train it on the node's own digits."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits.task import accuracy, load_partition, train

app = ClientApp()


@app.train()
def train_on_own_digits(message: Message, context: Context) -> Message:
    """Return the weights after local training, with the number of examples they rest on."""
    data = load_partition(
        partition_id=int(context.node_config["partition-id"]),
        num_partitions=int(context.node_config["num-partitions"]),
    )
    weights = train(
        message.content["arrays"].to_numpy_ndarrays(),
        data,
        epochs=int(context.run_config["local-epochs"]),
        learning_rate=float(context.run_config["learning-rate"]),
        seed=int(message.content["config"]["server-round"]),
    )
    metrics = {"num-examples": len(data), "train-accuracy": accuracy(weights, data)}
    content = RecordDict({"arrays": ArrayRecord(weights), "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=message)
