"""The loader of named SQL: `sql/<noun>.sql` has queries under `-- name: comment` lines."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

_HEADER = re.compile(r"^-- ([a-z_]+): (\S.*)$")


class InvalidSqlFile(ValueError):
    """A file of named SQL breaks the rules: every query has a name of its own and a comment."""


@cache
def load(noun: str) -> Mapping[str, str]:
    """Return the queries of `sql/<noun>.sql` by name."""
    text = resources.files("flower_nats.store").joinpath("sql", f"{noun}.sql").read_text("utf-8")
    return parse(text)


def parse(text: str) -> Mapping[str, str]:
    """Split a file of named SQL; raises `InvalidSqlFile`."""
    queries: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header is None:
            if lines is not None:
                lines.append(line)
            elif line.strip():
                raise InvalidSqlFile(f"SQL before the first name: {line}")
        elif header[1] in queries:
            raise InvalidSqlFile(f"two queries are called {header[1]}")
        else:
            lines = queries[header[1]] = []
    found = {name: "\n".join(body).strip() for name, body in queries.items()}
    if empty := [name for name, body in found.items() if not body]:
        raise InvalidSqlFile(f"no SQL under {', '.join(empty)}")
    return MappingProxyType(found)
