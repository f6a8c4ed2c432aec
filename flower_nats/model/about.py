"""What a process of the runtime says of itself, for people to find it by."""

import os
import socket
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any


def about_process(**more: Any) -> Mapping[str, Any]:
    """Return {host, pid, version}, and `more` that only this kind of process has to say."""
    own = {"host": socket.gethostname(), "pid": os.getpid(), "version": version("flower-nats")}
    return {**own, **more}
