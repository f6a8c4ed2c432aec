"""Average arrays to which each node has added its number: the result shows who took part.

The app uses only what flwr 1.30 has.
"""

import time
from importlib.metadata import version

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

SIZE = 50_000
"""Numbers in an array, which make it an object of some size."""

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    (values,) = message.content["values"].to_numpy_ndarrays()
    number = int(context.node_config["number"])
    who = ConfigRecord({"number": number, "flwr": version("flwr")})
    content = RecordDict({"values": ArrayRecord([values + number]), "who": who})
    return Message(content, reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    node_ids = [int(node_id) for node_id in str(context.run_config["nodes"]).split()]
    print(f"waiting for {len(node_ids)} nodes", flush=True)
    while not set(node_ids) <= set(grid.get_node_ids()):
        time.sleep(0.2)
    values = np.zeros(SIZE)
    for number in range(1, int(context.run_config["rounds"]) + 1):
        content = RecordDict({"values": ArrayRecord([values])})
        messages = [Message(content, node_id, "train") for node_id in node_ids]
        replies = [reply.content for reply in grid.send_and_receive(messages, timeout=120)]
        for who in (reply["who"] for reply in replies):
            print(f"round {number}: node {who['number']} of flwr {who['flwr']}", flush=True)
        answers = [reply["values"].to_numpy_ndarrays()[0] for reply in replies]
        values = np.mean(answers, axis=0)
    (result,) = set(values.tolist())
    print(f"result {result} by the ServerApp of flwr {version('flwr')}", flush=True)
