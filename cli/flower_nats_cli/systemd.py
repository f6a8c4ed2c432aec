"""The systemd user unit of `flower-nats local`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

_NAME = "flower-nats-local.service"


def unit_path() -> Path:
    """Return where systemd looks for a unit of this user."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "systemd" / "user" / _NAME


def unit_of(path: Path) -> str:
    """Return the name of a unit without its ending."""
    return path.stem


def unit_text(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """Return a unit that runs a command with these variables."""
    return "\n".join(
        [
            "[Unit]",
            "Description=Local runtime of flower-nats, for the local connection of flwr",
            "",
            "[Service]",
            # Here, and only here, a $ would be a variable.
            "ExecStart=" + " ".join(_quoted(word.replace("$", "$$")) for word in command),
            # It finds its programs beside this Python, or on the present PATH.
            "Environment=" + _quoted(f"PATH={os.environ.get('PATH', os.defpath)}"),
            *(f"Environment={_quoted(f'{name}={value}')}" for name, value in variables.items()),
            # Only the main process gets SIGTERM: it ends the others in order, within 10 s.
            "KillMode=mixed",
            "TimeoutStopSec=20",
            "Restart=on-failure",
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        ]
    )


def _quoted(text: str) -> str:
    """Quote for systemd (systemd.syntax), where % is special too."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
