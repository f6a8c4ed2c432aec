"""Ask only the first nodes, in the order of their ids."""

import time

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()


@client.query()
def answer(message: Message, context: Context) -> Message:
    reply = ConfigRecord({"name": str(context.node_config["name"])})
    return Message(content=RecordDict({"reply": reply}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    while len(node_ids := sorted(grid.get_node_ids())) < int(config["nodes"]):
        time.sleep(0.1)
    asked = node_ids[: int(config["ask"])]
    messages = [Message(RecordDict(), node_id, "query") for node_id in asked]
    for reply in grid.send_and_receive(messages, timeout=120):
        node_id = reply.metadata.src_node_id
        print(f"asked node {node_id}: {reply.content['reply']['name']}", flush=True)
    print(f"asked {len(asked)} of {len(node_ids)} nodes", flush=True)
