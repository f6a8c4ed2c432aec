"""Versions of Flower, and the differences that matter when starting its programs.

From version to version, one API of Flower after the other went from gRPC to HTTP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from flower_nats.model import tried
from flower_nats.model.errors import FlowerNatsError


class FlowerVersionError(FlowerNatsError):
    """A stock Flower program does not tell its version, or is too old."""


@dataclass(frozen=True, order=True)
class FlowerVersion:
    """A version of flwr without its last number, such as 1.42."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> FlowerVersion:
        """Read a version such as 1.42.0; raises FlowerVersionError."""
        found = re.match(r"(\d+)\.(\d+)", text)
        if found is None:
            raise FlowerVersionError(f"{text!r} is not a version of flwr, such as 1.42.0.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def before(self) -> FlowerVersion:
        """The version before this one."""
        return FlowerVersion(self.major, self.minor - 1)


OLDEST = FlowerVersion(1, 30)
"""The oldest version that is served. Older SuperExecs speak another ServerAppIo API."""

NEWEST = FlowerVersion(*tried.NEWEST)
"""The newest version that was tried."""

RUNTIME_OVER_HTTP = FlowerVersion(1, 35)
"""The first version whose SuperExecs and ServerApps use HTTP."""

CONTROL_OVER_HTTP = FlowerVersion(1, 37)
"""The first version whose `flwr` command uses HTTP."""

FLEET_OVER_HTTP = FlowerVersion(1, 40)
"""The first version whose SuperNodes use HTTP."""

RUNTIME_ADDRESS_FLAG = FlowerVersion(1, 36)
"""The first version whose SuperExecs are given `--runtime-api-address`."""

WITHOUT_PLUGIN_TYPE = FlowerVersion(1, 38)
"""The first version whose SuperExecs need no `--plugin-type`."""

SUPERNODE_PORT_FLAG = FlowerVersion(1, 35)
"""The first version whose SuperNodes are given `--host` and `--port` for their own ClientApps."""
