"""Ask nodes, some of them slow, and print the outcome of each question."""

import time

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()


@client.query()
def answer(message: Message, context: Context) -> Message:
    if str(context.node_config["name"]) in str(context.run_config["slow-nodes"]).split():
        print("taking my time", flush=True)
        time.sleep(float(context.run_config["seconds"]))
    return Message(content=RecordDict({"reply": ConfigRecord()}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    while len(node_ids := sorted(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.1)
    open_questions = {
        message_id: node_id
        for node_id in node_ids
        for message_id in grid.push_messages([Message(RecordDict(), node_id, "query")])
    }
    print(f"asked {len(open_questions)} nodes", flush=True)
    while open_questions:
        for reply in grid.pull_messages(list(open_questions)):
            node_id = open_questions.pop(reply.metadata.reply_to_message_id)
            error = reply.error if reply.has_error() else None
            outcome = f"error {error.code}: {error.reason}" if error else "answer"
            print(f"node {node_id}: {outcome}", flush=True)
        time.sleep(0.5)
