"""Average arrays to which each simulated SuperNode has added its number.

The app uses only what flwr 1.30 has.
"""

import time
from importlib.metadata import version

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    (values,) = message.content["values"].to_numpy_ndarrays()
    number = int(context.node_config["partition-id"])
    time.sleep(float(context.run_config["pause"]))
    content = RecordDict({"values": ArrayRecord([values + number])})
    return Message(content, reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    # The SuperNodes of a simulation start at the same time as the ServerApp.
    while len(node_ids := list(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.1)
    print(f"{len(node_ids)} nodes of flwr {version('flwr')}", flush=True)
    values = np.zeros(10)
    for number in range(1, int(context.run_config["rounds"]) + 1):
        content = RecordDict({"values": ArrayRecord([values])})
        messages = [Message(content, node_id, "train") for node_id in node_ids]
        replies = [reply.content for reply in grid.send_and_receive(messages, timeout=120)]
        answers = [reply["values"].to_numpy_ndarrays()[0] for reply in replies]
        values = np.mean(answers, axis=0)
        print(f"round {number}: {len(replies)} answers, {values[0]}", flush=True)
