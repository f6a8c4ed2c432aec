"""Reads Compose files like `docker compose`, with the features that our files use.

From the Compose Specification: variables, `extends` from another file, several files merged, a
command as one string. The tests do not run features that are not read here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:-|:\?)([^}]*))?\})")

# Later files and extending services add to these lists; they replace all other values.
_ADDED = ("secrets", "volumes", "ports", "tmpfs", "cap_add")


class VariableMissingError(KeyError):
    """A variable that a file requires is not set."""


@dataclass(frozen=True)
class Service:
    """One service, with all variables filled in."""

    name: str
    settings: Mapping[str, Any]

    @property
    def command(self) -> list[str]:
        """The command as a list of arguments."""
        command = self.settings.get("command", [])
        return shlex.split(command) if isinstance(command, str) else [str(part) for part in command]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of the service."""
        return {key: str(value) for key, value in self.settings.get("environment", {}).items()}

    @property
    def image(self) -> str:
        """The image with its tag."""
        return str(self.settings["image"])

    @property
    def health_command(self) -> list[str]:
        """The command of the health check."""
        kind, *command = self.settings["healthcheck"]["test"]
        assert kind == "CMD"
        return [str(part) for part in command]

    @property
    def replicas(self) -> int:
        """The number of containers."""
        return int(self.settings.get("deploy", {}).get("replicas", 1))

    @property
    def mounts(self) -> dict[str, str]:
        """The volume's name or the host's path, by the path in the container."""
        parts = [volume.split(":") for volume in self.settings.get("volumes", [])]
        return {target: source for source, target, *_ in parts}

    @property
    def secrets(self) -> list[str]:
        """The names of the secrets that the service may read."""
        return list(self.settings.get("secrets", []))

    @property
    def dependencies(self) -> dict[str, str]:
        """The services that must come first, and the condition of each."""
        needed = self.settings.get("depends_on", {})
        return {name: details["condition"] for name, details in needed.items()}


@dataclass(frozen=True)
class Composition:
    """One stack, like the output of `docker compose config`."""

    document: Mapping[str, Any]

    @property
    def services(self) -> dict[str, Service]:
        """All services by name."""
        return {name: Service(name, own) for name, own in self.document["services"].items()}

    def in_order(self) -> list[Service]:
        """All services, each after those that it depends on."""
        ordered: dict[str, Service] = {}
        waiting = dict(self.services)
        while waiting:
            ready = [one for one in waiting.values() if ordered.keys() >= one.dependencies.keys()]
            assert ready, f"these wait for each other, or for nothing: {sorted(waiting)}"
            for service in ready:
                ordered[service.name] = waiting.pop(service.name)
        return list(ordered.values())


def read_env_file(path: Path) -> dict[str, str]:
    """Read the variables of an env file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {key: value for key, _, value in pairs}


def compose(files: Sequence[Path], variables: Mapping[str, str]) -> Composition:
    """Merge files, and fill in variables. Raises VariableMissingError."""
    document: dict[str, Any] = {}
    for file in files:
        document = _merged(document, _read(file))
    return Composition(_filled_in(document, variables))


def _read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name, service in document.get("services", {}).items():
        if "extends" in service:
            document["services"][name] = _extended(service, file.parent)
    return document


def _extended(service: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    own = dict(service)
    base = own.pop("extends")
    return _merged(_read(folder / base["file"])["services"][base["service"]], own)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merged(merged[key], value)
        elif key in _ADDED and key in merged and isinstance(value, list):
            merged[key] = [*merged[key], *value]
        else:
            merged[key] = value
    return merged


def _filled_in(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _value(found, variables), value)
    if isinstance(value, Mapping):
        return {key: _filled_in(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled_in(one, variables) for one in value]
    return value


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, operator, operand = found.groups()
    if name is None:
        return "$"
    if variables.get(name):
        return variables[name]
    if operator == ":?":
        raise VariableMissingError(f"{name}: {operand}")
    if operator is None and name not in variables:
        # Docker would warn and use an empty value. In our files this is a mistake.
        raise VariableMissingError(name)
    return operand or ""
