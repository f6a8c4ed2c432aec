"""`flower-nats local`: the runtime of one person on one machine, in the background.

It listens where the local connections of `flwr` look for a SuperLink, so that they use it instead of
starting one of their own (flwr 1.42 `cli/local_superlink.py`).
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from flower_nats.embedded.process import private_directory
from flower_nats.logs import configure_logs, get_logger
from flower_nats.model.errors import FlowerNatsError
from flower_nats.settings import GatewaySettings, LogSettings, SuperexecSettings
from flower_nats.stopping import stop_at_signals, until
from flower_nats_cli import log_files
from flower_nats_cli import options as opts
from flower_nats_cli.addresses import LOOPBACK, accepts_connections, join_address
from flower_nats_cli.app_dependencies import installs_dependencies
from flower_nats_cli.datadir import DataDir, DirectoryInUseError, RunningState, never_started
from flower_nats_cli.down import down
from flower_nats_cli.environment import PREFIX
from flower_nats_cli.flower import RAY_CLUSTER, superexec_version
from flower_nats_cli.flower_config import flwr_home
from flower_nats_cli.flower_version import RUNTIME_OVER_HTTP, FlowerVersion
from flower_nats_cli.listeners import listener_on
from flower_nats_cli.runtime_access import runtime_access
from flower_nats_cli.simulation import check_simulations_can_run
from flower_nats_cli.stack import Stack, StackSettings
from flower_nats_cli.status import status as status_command
from flower_nats_cli.systemd import unit_of, unit_path, unit_text

log = get_logger(__name__)

_HTTP_PORT = "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"
_CONTROL_PORT = "FLWR_LOCAL_CONTROL_API_PORT"
_PORTS = {_HTTP_PORT: 39091, _CONTROL_PORT: 39093}
"""Variables that tell `flwr` where its local SuperLink is, and its defaults (flwr 1.42)."""

_START_SECONDS = 130.0
"""Seconds for the runtime to become ready: longer than its own limit."""
_POLL_SECONDS = 0.1
_LINES_SHOWN = 50


class LocalError(FlowerNatsError):
    """The runtime cannot be started, or has not come up."""


_ALLOW, _DISABLE = (f"{way}_runtime_dependency_installation" for way in ("allow", "disable"))
"""The options that say whether dependencies of apps are installed."""


def _option(flag: str, **attributes: Any) -> Callable[[opts.Command], opts.Command]:
    """Return an option that has the same variable in all of the commands."""
    variable = f"{PREFIX}_LOCAL_{flag.lstrip('-').replace('-', '_').upper()}"
    return click.option(
        flag, envvar=variable, allow_from_autoenv=False, show_envvar=True, **attributes
    )


_data_dir_option = _option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: flwr_home() / "local-superlink" / "flower-nats",
    show_default="$FLWR_HOME/local-superlink/flower-nats",
    help="Directory for all data of this runtime: runs, logs, apps.",
)

_runtime_options = (
    _data_dir_option,
    _option(
        "--max-concurrent-simulations",
        type=opts.SIMULATIONS,
        show_default="1 for every two cores",
        help="Simulations that run at the same time; more wait.",
    ),
    _option(
        "--disable-runtime-dependency-installation",
        is_flag=True,
        # Stock's own variable. A user who set it for stock wants the same here.
        default=lambda: os.environ.get("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION") == "1",
        show_default="off where uv reaches a package index",
        help="Do not install what an app depends on before it starts.",
    ),
    _option(
        "--allow-runtime-dependency-installation",
        is_flag=True,
        help="Install it with `uv sync` for each run, also where no package index was reached at the "
        "start.",
    ),
)


def _with_runtime_options(command: opts.Command) -> opts.Command:
    for option in reversed(_runtime_options):
        command = option(command)
    return command


@click.group()
def local() -> None:
    """Run simulations on this machine, for the local connection of `flwr`, in the background."""


@local.command()
@_with_runtime_options
def start(**options: Any) -> None:
    """Start the runtime, unless it runs already."""
    data = DataDir(options["data_dir"])
    try:
        with data.owned():
            installs = _check_can_start(options)
    except DirectoryInUseError:
        click.echo("\n".join(_running_text(_await_ready(data, None))))
        return
    # `serve` need not repeat this check.
    found = {_ALLOW: installs, _DISABLE: not installs}
    process = _spawn(data, {**options, **found})
    click.echo("\n".join(_running_text(_await_ready(data, process))))


@local.command()
@_data_dir_option
@click.option(
    "--wait",
    is_flag=True,
    help="Let current runs end first. Meanwhile new runs are refused.",
)
@click.pass_context
def stop(context: click.Context, /, data_dir: Path, wait: bool) -> None:
    """End the runtime and its running simulations. Pending ones start when the runtime is back."""
    _check_used(DataDir(data_dir))
    context.invoke(down, data_dir=data_dir, yes=True, wait=math.inf if wait else None)


@local.command()
@_data_dir_option
@opts.format_option
@click.pass_context
def status(context: click.Context, /, data_dir: Path, format: str) -> None:
    """Show the state of the runtime, its runs and processes. Exit code 0 means that it is healthy."""
    context.invoke(status_command, data_dir=data_dir, format=format)


@local.command()
@_data_dir_option
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=_LINES_SHOWN,
    help="Last lines of each log to show.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.argument("process", required=False)
def logs(data_dir: Path, lines: int, follow: bool, process: str | None) -> None:
    """Show the output of the runtime's processes, or of one PROCESS.

    For the log of a run, use `flwr log`.
    """
    data = DataDir(data_dir)
    _check_used(data)
    files = {file.stem: file for file in sorted(data.logs.glob("*.log"))}
    if process is not None and process not in files:
        raise click.BadParameter(
            f"{process!r} is none of {', '.join(files)}.", param_hint="PROCESS"
        )
    chosen = files if process is None else {process: files[process]}
    for line in log_files.last_lines(chosen, lines):
        click.echo(line)
    if follow:
        with suppress(KeyboardInterrupt):
            for line in log_files.follow(chosen):
                click.echo(line)


@local.command()
@_with_runtime_options
def install(**options: Any) -> None:
    """Write a systemd user unit that starts the runtime when you log in."""
    data = DataDir(options["data_dir"])
    path = unit_path()
    kept = [name for name in ("FLWR_HOME", RAY_CLUSTER, *_PORTS) if name in os.environ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            unit_text(_serve_command(data, options), {name: os.environ[name] for name in kept})
        )
    except OSError as exc:
        raise LocalError(f"{path} cannot be written: {exc.strerror}.") from exc
    unit = unit_of(path)
    click.echo(
        f"Wrote {path}.\nStart it now and at each login:  systemctl --user daemon-reload && "
        f"systemctl --user enable --now {unit}\nWithout a login, at each boot:    loginctl "
        f"enable-linger\nRemove it:                     systemctl --user disable --now {unit} && "
        f"rm {path}"
    )


@local.command(hidden=True)
@_with_runtime_options
def serve(**options: Any) -> None:
    """Run the runtime in the foreground. `start` and the systemd unit use this."""
    import uvloop

    settings = stack_settings(options)
    with settings.data.owned():
        configure_logs(LogSettings())
        uvloop.run(_serve(settings))


def stack_settings(options: dict[str, Any]) -> StackSettings:
    """Turn the command's options into settings."""
    version = superexec_version()
    gateway = _gateway_settings(version)
    address, _ = runtime_access(gateway, version)
    superexec = SuperexecSettings(
        runtime_api_address=address,
        runtime_dependency_installation=installs_dependencies(options),
        max_simulations=options["max_concurrent_simulations"],
    )
    return StackSettings(
        data=DataDir(options["data_dir"]),
        gateway=gateway,
        superexec=superexec,
        flower=version,
        one_process=True,
        simulation=True,
    )


def _gateway_settings(version: FlowerVersion) -> GatewaySettings:
    over_http = version >= RUNTIME_OVER_HTTP
    return GatewaySettings(
        nats=(),
        http_api_address=join_address(LOOPBACK, _port(_HTTP_PORT)),
        # Only our own SuperExec uses it, so any port will do.
        serverappio_api_address="" if over_http else join_address(LOOPBACK, 0),
        fleet_api_address="",
        control_api_address=join_address(LOOPBACK, _port(_CONTROL_PORT)),
        # No client calls from another machine. Counting connections would only cost CPU.
        max_connections_per_address=0,
    )


def _port(variable: str) -> int:
    text = os.environ.get(variable, str(_PORTS[variable]))
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise LocalError(
            f"{variable} is {text!r}. Remedy: set it to a port from 1 to 65535, or unset it."
        )
    return int(text)


def _check_can_start(options: dict[str, Any]) -> bool:
    """Return whether dependencies are installed; raise errors that `serve` could only log."""
    if len({_port(variable) for variable in _PORTS}) < len(_PORTS):
        raise LocalError(f"{' and '.join(_PORTS)} are the same port. Remedy: set different ports.")
    for variable in _PORTS:
        _check_free(variable)
    installs = installs_dependencies(options)
    check_simulations_can_run(installs=installs)
    return installs


def _check_free(variable: str) -> None:
    port = _port(variable)
    if not accepts_connections(join_address(LOOPBACK, port)):
        return
    listener = listener_on(port)
    another = f"set {' and '.join(_PORTS)} to other ports, for `flwr` as well"
    if listener is None:
        raise LocalError(
            f"Port {port} is in use by a program of another user, perhaps a runtime like this "
            f"one. Remedy: {another}."
        )
    pid, name = listener
    if name == "flower-superlink":
        raise LocalError(
            f"Port {port} is taken by flower-superlink (pid {pid}), which `flwr` started for its "
            f"local connection and never ends. Remedy: `kill {pid}` once its runs have ended. "
            "Its runs stay in its own database, which flower-nats does not read."
        )
    raise LocalError(f"Port {port} is taken by {name} (pid {pid}). Remedy: end it, or {another}.")


def _check_used(data: DataDir) -> None:
    if not data.was_used():
        raise LocalError(never_started(data.path, "flower-nats local start"))


def _serve_command(data: DataDir, options: dict[str, Any]) -> Sequence[str]:
    # -P: Python must not import a folder called nats or click from the current directory.
    command = [sys.executable, "-P", "-m", "flower_nats_cli.main", "local", "serve"]
    command += ["--data-dir", str(data.path)]
    if options["max_concurrent_simulations"] is not None:
        command += ["--max-concurrent-simulations", str(options["max_concurrent_simulations"])]
    for name in (_ALLOW, _DISABLE):
        if options[name]:
            command += [f"--{name.replace('_', '-')}"]
    return command


def _spawn(data: DataDir, options: dict[str, Any]) -> subprocess.Popen[bytes]:
    private_directory(data.path)
    with data.log_of("local").open("wb") as output:
        return subprocess.Popen(
            _serve_command(data, options),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # The current directory may be unmounted or removed later.
            cwd=data.path,
            # The runtime must survive the end of the terminal, and Ctrl-C in it.
            start_new_session=True,
        )


def _await_ready(data: DataDir, process: subprocess.Popen[bytes] | None) -> RunningState:
    """Wait until the runtime of `process`, or the one that owns the directory, is ready."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        state = data.state()
        if state is not None:
            return state
        if (process is not None and process.poll() is not None) or (
            process is None and data.owner() is None
        ):
            # Another command may have started a runtime at the same moment.
            if process is not None and data.owner() is not None:
                process = None
                continue
            break
        time.sleep(_POLL_SECONDS)
    said = data.log_of("local").read_text(errors="replace").strip().splitlines()[-15:]
    raise LocalError(
        "The runtime did not start. Its last output:\n" + "\n".join(f"  {line}" for line in said)
    )


def _running_text(state: RunningState) -> Iterator[str]:
    yield f"The local runtime runs (pid {state.pid}) on {_served(state)}."
    yield "Run an app:  flwr run .     in its folder, with the local connection of `flwr`"
    yield "See it:      flwr list, or flower-nats local status"
    yield "End it:      flower-nats local stop"


def _served(state: RunningState) -> str:
    return f"{state.http_api_address} and {state.control_api_address}"


async def _serve(settings: StackSettings) -> None:
    end = stop_at_signals()
    stack = Stack(settings)
    try:
        if await until(end, stack.start()) is not None:
            log.info("ready")
            await stack.supervisor.run(end)
        log.info("ending")
    finally:
        await stack.stop()
    log.info("ended")
