"""Exchange messages with all nodes, round after round, until a file exists."""

import itertools
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()


@client.train()
def answer(message: Message, context: Context) -> Message:
    return Message(content=RecordDict({"reply": ConfigRecord()}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    for number in range(1024 * int(context.run_config["log-mib"])):
        print(f"{number:01023}")
    nodes = int(context.run_config["nodes"])
    while len(node_ids := sorted(grid.get_node_ids())) < nodes:
        time.sleep(0.1)
    for number in itertools.count(1):
        content = RecordDict({"round": ConfigRecord({"number": number})})
        replies = list(grid.send_and_receive([Message(content, one, "train") for one in node_ids]))
        answers = sum(not reply.has_error() for reply in replies)
        print(f"round {number}: {answers} answers, {len(replies) - answers} errors", flush=True)
        if Path(str(context.run_config["until"])).exists():
            return
