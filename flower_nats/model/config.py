"""Configurations of apps and their overrides: flat maps from dotted names to plain values."""

from collections.abc import Mapping
from typing import Any

from flower_nats.model.errors import FlowerNatsError

Value = bool | int | float | str
Config = dict[str, Value]

MAX_OVERRIDES_BYTES = 256 * 1024
"""Bytes of the values that one run overrides. Every read of the run includes them."""


class InvalidConfig(FlowerNatsError):
    """A configuration holds what it must not; the text says what."""


def flatten(table: Mapping[str, Any], prefix: str = "") -> Config:
    """Turn nested tables into one map with dotted names; raises `InvalidConfig`."""
    flat: Config = {}
    for key, value in table.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            flat.update(flatten(value, name))
        elif isinstance(value, (bool, int, float, str)):
            flat[name] = value
        else:
            raise InvalidConfig(
                f'The configuration value "{name}" must be a boolean, a number, a string or a '
                "table of those."
            )
    return flat


def check_overrides(config: Config, overrides: Mapping[str, Value]) -> None:
    """Check that only values of the app's configuration are overridden; raises `InvalidConfig`."""
    unknown = sorted(set(overrides) - set(config))
    if not unknown:
        return
    names = ", ".join(f'"{name}"' for name in unknown)
    known = ", ".join(f'"{name}"' for name in sorted(config)) or "nothing"
    raise InvalidConfig(
        f"The app has no configuration value {names}. Under [tool.flwr.app.config] it has {known}."
    )
