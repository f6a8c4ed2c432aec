"""Print numbered lines, each with its time, until the run is stopped."""

import os
import time
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    seen = str(context.run_config["seen"])
    print(f"process {os.getpid()}", flush=True)
    for number in range(1, int(context.run_config["lines"]) + 1):
        print(f"line {number} printed at {time.time():.3f}", flush=True)
        time.sleep(float(context.run_config["interval-seconds"]))
        while seen and not (Path(seen) / str(number)).exists():
            time.sleep(0.02)
