"""Fail in the ServerApp, with the message in the run config."""

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    print("about to fail", flush=True)
    raise RuntimeError(str(context.run_config["message"]))
