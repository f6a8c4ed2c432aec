"""The federation's side: average what the nodes learnt, and measure it on held-out digits."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits.task import accuracy, initial_weights, load_train_and_test

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run federated averaging and print the accuracy of the averaged model after every round."""
    rounds = int(context.run_config["rounds"])
    nodes = int(context.run_config["nodes"])
    _, held_out = load_train_and_test()

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        result = accuracy(arrays.to_numpy_ndarrays(), held_out)
        print(f"round {server_round}  accuracy {result:.3f}", flush=True)
        return MetricRecord({"accuracy": result})

    # The server measures on its own held-out digits, so the nodes have nothing to evaluate.
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(initial_weights()),
        num_rounds=rounds,
        evaluate_fn=evaluate,
    )
    final = result.evaluate_metrics_serverapp[rounds]["accuracy"]
    print(f"finished {rounds} rounds on {nodes} nodes  accuracy {final:.3f}", flush=True)
