"""Stock `flwr run` with any bytes in place of the FAB that it would build.

Usage: python submit_fab.py FAB_FILE ARGUMENTS_OF_FLWR…

The stock CLI refuses to build a FAB that is too large or incomplete. This program sends such a FAB,
so that tests reach the server's own refusal, which a modified or later CLI would get.
"""

import importlib
import sys
from pathlib import Path

from flwr.cli.app import app


def main() -> None:
    fab = Path(sys.argv.pop(1)).read_bytes()
    run_module = importlib.import_module("flwr.cli.run.run")
    run_module.__dict__["build_fab_from_disk"] = lambda _: fab
    app()


if __name__ == "__main__":
    main()
