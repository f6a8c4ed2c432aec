"""Whole runs with the unmodified clients of each flwr, and with those of several in one federation."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from packaging.version import InvalidVersion, Version

from harness.flower import Flower
from harness.flower_environments import FOLDER_VARIABLE, VERSIONS, environment
from tests.matrix.line import Cast, play
from tests.matrix.servers import Server, flower_nats, stock
from tests.matrix.table import Result, split, table, write

MIXED = (
    Cast(("1.30.0", "1.33.0", "1.36.0", "1.39.0", "1.40.0", "1.42.0"), "1.34.0", "1.37.0"),
    Cast(("1.42.0", "1.40.0", "1.39.0", "1.36.0", "1.33.0", "1.30.0"), "1.41.0", "1.31.0"),
)
_TAIL = 25

Serving = Callable[[Cast, Path], AbstractContextManager[Server]]
"""Returns the server for a line."""


def main(arguments: Sequence[str]) -> int:
    """Play all lines and print them; return 1 if one has failed."""
    options = _parse(arguments)
    casts = [Cast.of(version) for version in options.versions or VERSIONS]
    if options.stock:
        results = _play_all(casts, _own_server)
    else:
        casts += MIXED if options.mixed or not options.versions else ()
        with (
            tempfile.TemporaryDirectory(prefix="matrix-") as folder,
            flower_nats(Path(folder)) as server,
        ):
            results = _play_all(casts, _the_same(server))
    text = table(results)
    print(f"\n{text}")
    if options.write is not None:
        write(options.write, text)
    return int(any(result.failure for result in results))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.matrix",
        description=__doc__,
        epilog=f"{FOLDER_VARIABLE} says where the environments are kept; by default in .matrix.",
    )
    parser.add_argument(
        "versions",
        nargs="*",
        metavar="VERSION",
        type=_version,
        help=f"a flwr to try, in any number; by default {', '.join(VERSIONS)}, and mixtures",
    )
    parser.add_argument("--mixed", action="store_true", help="the mixtures, also beside VERSIONs")
    parser.add_argument(
        "--stock",
        action="store_true",
        help="call each version's own flower-superlink instead, which shows that the clients and the "
        "app are all right; without mixtures, which it does not take",
    )
    parser.add_argument(
        "--write", metavar="PAGE", type=_page, help="a page with a place for the table"
    )
    return parser.parse_args(arguments)


def _version(text: str) -> str:
    try:
        return str(Version(text))
    except InvalidVersion as exc:
        raise argparse.ArgumentTypeError(f"{text} is not a version such as 1.42.0") from exc


def _page(text: str) -> Path:
    try:
        split(Path(text))
    except (OSError, ValueError) as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return Path(text)


@contextmanager
def _own_server(cast: Cast, folder: Path) -> Iterator[Server]:
    with stock(Flower(environment(cast.cli)), folder / "server") as server:
        yield server


def _the_same(server: Server) -> Serving:
    @contextmanager
    def serving(cast: Cast, folder: Path) -> Iterator[Server]:
        yield server

    return serving


def _play_all(casts: Sequence[Cast], serving: Serving) -> list[Result]:
    return [_play(cast, serving) for cast in casts]


def _play(cast: Cast, serving: Serving) -> Result:
    print(f"{cast.title}: ", end="", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="matrix-line-") as place:
        folder = Path(place)
        shown = folder
        try:
            for version in sorted(cast.versions):
                environment(version)
            with serving(cast, folder) as server:
                shown = server.folder
                result = Result(cast, play(cast, server.addresses, folder / "clients"))
        except Exception as exc:
            # Any exception is the result of this line; the other lines still run.
            result = Result(cast, 0.0, f"{type(exc).__name__}: {exc}")
            _print_failure(result, {folder, shown})
    if not result.failure:
        print(f"passed in {time.monotonic() - began:.0f} s", flush=True)
    return result


def _print_failure(result: Result, folders: set[Path]) -> None:
    print(f"FAILED\n{result.failure}", flush=True)
    for log in sorted({log for folder in folders for log in folder.rglob("*.log")}):
        lines = log.read_text(errors="replace").splitlines()
        print(f"--- {log.name}, its last lines:")
        print("\n".join(lines[-_TAIL:]), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
