"""A ClientApp that answers as `harness.app` says, in a stock SuperNode."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from harness import app

client = ClientApp()
server = ServerApp()
"""Never run: the harness is the ServerApp."""


@client.train()
def train(message: Message, context: Context) -> Message:
    return Message(app.answer(message, int(context.node_config["number"])), reply_to=message)
