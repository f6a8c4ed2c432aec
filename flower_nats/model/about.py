"""What a process of the runtime reports of itself, so that people can find it."""

import os
import socket
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from flower_nats.model.errors import FlowerNatsError

UPGRADE = (
    "Remedy: end all superlinks and gateways, and then start all of one version, superlinks first "
    "(docs/operations.md#upgrade-and-rollback)."
)


class OtherVersion(FlowerNatsError):
    """Processes of two versions of flower-nats would work together."""


def own_version() -> str:
    """Return the version of flower-nats of this process."""
    return version("flower-nats")


def about_process(**more: Any) -> Mapping[str, Any]:
    """Return {host, pid, version}, and `more` that only this kind of process reports."""
    own = {"host": socket.gethostname(), "pid": os.getpid(), "version": own_version()}
    return {**own, **more}
