"""The Flower config of `flwr`, a TOML file that people edit: adds a connection and keeps the rest.

flwr's own file has a `[superlink]` table from the start, so a second one breaks it (flwr 1.30 to
1.42 `cli/constant.py`). Each change is read back: the file must mean the same as before, and have
the connection.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any


class CannotEdit(ValueError):
    """The text cannot be changed without a risk to what is in it."""


def flwr_home() -> Path:
    """Return the directory of `flwr`'s own files (flwr 1.42 `supercore/utils.py`)."""
    given = os.environ.get("FLWR_HOME")
    return Path(given).expanduser() if given else Path.home() / ".flwr"


def flower_config_name() -> str:
    """Return the path of the Flower config that `flwr` reads here, as people write it."""
    return f"{os.environ.get('FLWR_HOME') or '~/.flwr'}/config.toml".replace("//", "/")


def with_connection(text: str, name: str, lines: str, *, as_default: bool) -> str:
    """Return `text` with a connection, given as its table's lines; raises CannotEdit."""
    before = _parsed(text)
    known = before.get("superlink", {})
    if not isinstance(known, dict):
        raise CannotEdit("has a `superlink` that is not a table")
    wanted = tomllib.loads(lines)["superlink"][name]
    changed = text if known.get(name) == wanted else _with_table(text, name, lines)
    expected: dict[str, Any] = {**before, "superlink": {**known, name: wanted}}
    if as_default:
        changed = _with_default(changed, name)
        expected["superlink"]["default"] = name
    if _parsed(changed) != expected:
        raise CannotEdit("is written in a way to which nothing can be added safely")
    return changed


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise CannotEdit(f"is not valid TOML ({exc})") from exc


def _with_table(text: str, name: str, lines: str) -> str:
    """Replace the table of that name, or add it at the end."""
    header = re.compile(rf"^[ \t]*\[[ \t]*superlink\.{re.escape(name)}[ \t]*\].*$", re.MULTILINE)
    found = header.search(text)
    if found is None:
        return f"{text.rstrip()}\n\n{lines}\n".lstrip("\n")
    following = re.compile(r"^[ \t]*\[", re.MULTILINE).search(text, found.end())
    rest = "" if following is None else f"\n{text[following.start() :]}"
    return f"{text[: found.start()]}{lines}\n{rest}"


def _with_default(text: str, name: str) -> str:
    header = re.search(r"^[ \t]*\[[ \t]*superlink[ \t]*\][^\n]*\n?", text, re.MULTILINE)
    line = f'default = "{name}"\n'
    if header is None:
        return f"{text.rstrip()}\n\n[superlink]\n{line}".lstrip("\n")
    following = re.compile(r"^[ \t]*\[", re.MULTILINE).search(text, header.end())
    end = len(text) if following is None else following.start()
    table = text[header.end() : end]
    kept = re.sub(r"^[ \t]*default[ \t]*=[^\n]*\n?", "", table, flags=re.MULTILINE)
    start = text[: header.end()]
    return f"{start if start.endswith(chr(10)) else start + chr(10)}{line}{kept}{text[end:]}"
