"""`flower-nats demo`: a real federated training, from nothing to its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import tempfile
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Sequence
from pathlib import Path

import click

from flower_nats.embedded.ports import free_ports
from flower_nats.embedded.process import OwnedProcess, ProcessSpec
from flower_nats.logs import configure_logs
from flower_nats.model.errors import FlowerNatsError
from flower_nats.settings import GatewaySettings, LogSettings, SuperexecSettings
from flower_nats.stopping import until
from flower_nats_cli.addresses import LOOPBACK, join_address
from flower_nats_cli.datadir import DataDir
from flower_nats_cli.environment import without_proxy_to
from flower_nats_cli.flower import (
    connection_config,
    environment_for,
    find_program,
    superexec_version,
    supernode_flags,
)
from flower_nats_cli.flower_version import (
    CONTROL_OVER_HTTP,
    FLEET_OVER_HTTP,
    SUPERNODE_PORT_FLAG,
    FlowerVersion,
)
from flower_nats_cli.stack import Stack, StackSettings

_SUPERNODES = 3
_SUPERNODE_GRACE_SECONDS = 3.0
_CONNECTION = "flower-nats"
_ANY_PORT = "--clientappio-api-address 127.0.0.1:0"
_ACCURACY = re.compile(r"^round (\d+)\s+accuracy ([0-9.]+)")


class DemoFailedError(FlowerNatsError):
    """The demo's run did not complete."""


@click.command()
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Rounds of federated averaging.",
)
def demo(rounds: int) -> None:
    """Train a model on three SuperNodes with the stock flwr command, here and now.

    Everything runs on free ports in a temporary directory and is gone afterwards.
    """
    configure_logs(LogSettings(level="error"))
    # Checked before the SuperExec, because other commands work without one.
    find_program("flwr")
    version = superexec_version()
    data = DataDir(Path(tempfile.mkdtemp(prefix="flower-nats-demo-")))
    try:
        with data.owned():
            asyncio.run(_Demo(data, example_app(), rounds, version).run())
    except FlowerNatsError as exc:
        raise DemoFailedError(f"{exc}\nThe logs are in {data.path / 'logs'}.") from exc
    shutil.rmtree(data.path)


def example_app() -> Path:
    """Return the folder of the example app: of the checkout, or of the installed package."""
    checkout = Path(__file__).parents[2] / "examples" / "digits"
    return checkout if checkout.is_dir() else Path(__file__).with_name("digits")


class _Demo:
    """One demo on one data directory."""

    def __init__(self, data: DataDir, app: Path, rounds: int, version: FlowerVersion) -> None:
        self._data = data
        self._version = version
        self._app = app
        self._rounds = rounds
        self._home = data.path / "flwr"
        self._home.mkdir()
        self._end = asyncio.Event()

    async def run(self) -> None:
        """Run the demo to its end; raises DemoFailedError if the training did not complete."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end.set)
        stack = Stack(self._settings(), FLWR_HOME=str(self._home))
        try:
            if await until(self._end, self._train(stack)) is None:
                raise DemoFailedError("The demo was interrupted.")
        finally:
            await stack.stop()
        click.echo(_how_to_go_on(self._app, self._version))

    async def _train(self, stack: Stack) -> bool:
        _say("Starting NATS, PostgreSQL, a superlink, a gateway and a SuperExec")
        state = await stack.start()
        version, http = self._version, state.http_api_address
        fleet = http if version >= FLEET_OVER_HTTP else state.fleet_api_address
        control = http if version >= CONTROL_OVER_HTTP else state.control_api_address
        _say(f"Connecting {_SUPERNODES} stock SuperNodes of flwr {version} to {fleet}")
        await stack.supervisor.start(self._supernodes(fleet), _SUPERNODE_GRACE_SECONDS)
        config = connection_config(_CONNECTION, control, None)
        (self._home / "config.toml").write_text(config + "\n")
        command = ["run", str(self._app), _CONNECTION, "--stream"]
        _say(f"Submitting {self._app.name}:  flwr {' '.join(command)}")
        accuracies = await self._submit([*command, "--run-config", f"rounds={self._rounds}"])
        await self._check_completed()
        _say("The run has completed. Accuracy on held-out digits:")
        for number, accuracy in accuracies.items():
            click.echo(f"  round {number}  {accuracy:.3f}  {'█' * round(40 * accuracy)}")
        return True

    def _environment(self, program: Path) -> dict[str, str]:
        direct = without_proxy_to(LOOPBACK, os.environ)
        return environment_for(program, FLWR_HOME=str(self._home), **direct)

    def _settings(self) -> StackSettings:
        anywhere = join_address(LOOPBACK, 0)
        return StackSettings(
            data=self._data,
            gateway=GatewaySettings(
                nats=(),
                http_api_address=anywhere,
                serverappio_api_address=anywhere,
                fleet_api_address=anywhere,
                control_api_address=anywhere,
            ),
            # The app's packages were installed with ours. The demo fetches nothing.
            superexec=SuperexecSettings(anywhere, runtime_dependency_installation=False),
            flower=self._version,
        )

    def _supernodes(self, fleet: str) -> list[OwnedProcess]:
        own = [join_address(LOOPBACK, port) for port in free_ports(_SUPERNODES)]
        return [self._supernode(fleet, address, number) for number, address in enumerate(own)]

    def _supernode(self, fleet: str, own: str, partition: int) -> OwnedProcess:
        name = f"supernode-{partition + 1}"
        program = find_program("flower-supernode")
        return OwnedProcess(
            ProcessSpec(
                name=name,
                command=[
                    *(str(program), *supernode_flags(fleet, own, None, self._version)),
                    *("--node-config", f"partition-id={partition} num-partitions={_SUPERNODES}"),
                ],
                environment=self._environment(program),
                log=self._data.log_of(name),
                pid_file=self._data.pid_file_of(name),
            )
        )

    async def _submit(self, command: Sequence[str]) -> dict[int, float]:
        """Run `flwr run --stream`, show what it says, return the accuracy after each round."""
        accuracies = {}
        process = await self._flwr(*command, stderr=STDOUT)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                text = line.decode(errors="replace").rstrip()
                click.echo(f"  {text}")
                if found := _ACCURACY.match(text):
                    accuracies[int(found[1])] = float(found[2])
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code != 0:
            raise DemoFailedError(f"flwr run ended with exit code {code}.")
        return accuracies

    async def _check_completed(self) -> None:
        process = await self._flwr("list", _CONNECTION, "--format", "json")
        listed, _ = await process.communicate()
        statuses = [run["status"] for run in json.loads(listed)["runs"]]
        if statuses != ["finished:completed"]:
            raise DemoFailedError(f"The run is {statuses}, not finished:completed.")

    async def _flwr(self, *arguments: str, stderr: int | None = None) -> Process:
        program = find_program("flwr")
        return await asyncio.create_subprocess_exec(
            *(str(program), *arguments),
            stdout=PIPE,
            stderr=stderr,
            env=self._environment(program),
            # Ctrl-C ends the demo, and the demo ends `flwr run`.
            start_new_session=True,
        )


def _say(text: str) -> None:
    click.secho(text, bold=True)


def _how_to_go_on(app: Path, version: FlowerVersion) -> str:
    port = 8000 if version >= FLEET_OVER_HTTP else 9092
    own = "--port 9095, 9096, …" if version >= SUPERNODE_PORT_FLAG else _ANY_PORT
    return f"""
How to go on:
  flower-nats up                                          a runtime of your own, on Flower's ports;
                                                          it tells you what your Flower config needs
  flower-supernode --insecure --superlink 127.0.0.1:{port}  one of your nodes; give more of them
                                                          {own}
  flwr run <app> flower-nats --stream                     your app, or {app}"""
