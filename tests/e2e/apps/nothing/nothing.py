"""Ask every node the same question, round after round, and print the answers."""

import time

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()


@client.query()
def answer(message: Message, context: Context) -> Message:
    question = message.content["query"]["question"]
    time.sleep(float(context.run_config["seconds"]))
    said = f"{question}, asked {context.node_config['name']}"
    ballast = bytes(int(context.run_config["ballast"]))
    reply = ConfigRecord({"answer": said, "ballast": ballast})
    return Message(content=RecordDict({"reply": reply}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    while len(node_ids := sorted(grid.get_node_ids())) < int(config["nodes"]):
        time.sleep(0.1)
    query = RecordDict({"query": ConfigRecord({"question": str(config["question"])})})
    for number in range(1, int(config["rounds"]) + 1):
        messages = [Message(query, node_id, "query", group_id=str(number)) for node_id in node_ids]
        for reply in grid.send_and_receive(messages, timeout=float(config["timeout"])):
            node_id = reply.metadata.src_node_id
            if reply.has_error():
                print(f"node {node_id} refused: {reply.error.reason}", flush=True)
                continue
            print(f"node {node_id} answered: {reply.content['reply']['answer']}", flush=True)
        print(f"round {number} gathered {len(messages)} answers", flush=True)
