"""A backup: a directory with a dump of PostgreSQL, a copy of the logs, and a description of both.

| file | holds |
|---|---|
| `database.dump` | runs, nodes, apps, contexts, accounts, as `pg_dump --format=custom` writes them |
| `logs.snapshot` | the stream of logs, as nats-server gives it |
| `backup.json` | when and by which version it was made; sizes and digests of the other two |

Messages in flight are not in a backup. A finished run has none. The processes of an unfinished run
are not on the machine where the backup is restored.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flower_nats.embedded.process import private_directory, private_file
from flower_nats.model.errors import FlowerNatsError

DATABASE, LOGS = "database.dump", "logs.snapshot"
_ABOUT = "backup.json"


class BackupError(FlowerNatsError):
    """A backup cannot be made there, or is none."""


@dataclass(frozen=True)
class Backup:
    """A backup that is whole."""

    path: Path
    version: str
    """The version of flower-nats that made the backup."""
    taken_at: str
    """The moment of the copy of the database, or shortly after it, as ISO 8601."""
    migration: str
    """The newest migration of the database."""
    logs: Mapping[str, Any]
    """The facts that are needed to read the copy of the logs."""

    @property
    def database(self) -> Path:
        """The dump of the database."""
        return self.path / DATABASE

    @property
    def logs_file(self) -> Path:
        """The copy of the logs."""
        return self.path / LOGS


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Make a directory that becomes `path` at the end of a `with` block that succeeds.

    Only its owner may read it. Raises BackupError if something is at `path`.
    """
    if path.exists():
        raise BackupError(f"{path} exists already. Remedy: choose a new name.")
    draft = path.with_name(path.name + ".unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    private_directory(draft)
    # For pg_dump as well.
    former = os.umask(0o077)
    try:
        yield draft
        draft.rename(path)
    finally:
        os.umask(former)
        shutil.rmtree(draft, ignore_errors=True)


def write_about(draft: Path, **known: Any) -> None:
    """Write the description of a backup whose other files exist."""
    files = {name: _described(draft / name) for name in (DATABASE, LOGS)}
    private_file(draft / _ABOUT, json.dumps({**known, "files": files}, indent=2) + "\n")


def read_backup(path: Path) -> Backup:
    """Read the description of a backup; raises BackupError if its files have changed since."""
    try:
        about = json.loads((path / _ABOUT).read_text())
        files = {name: about["files"][name] for name in (DATABASE, LOGS)}
        backup = Backup(
            path, about["version"], about["taken_at"], about["migration"], about["logs"]
        )
    except OSError as exc:
        raise BackupError(
            f"{path} is not a backup: {_ABOUT} cannot be read ({exc.strerror}). Remedy: use the "
            "directory that you gave to `flower-nats backup`."
        ) from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise BackupError(f"{path / _ABOUT} is damaged. Remedy: use another backup.") from exc
    for name, described in files.items():
        if not (path / name).is_file() or _described(path / name) != described:
            raise BackupError(
                f"{path / name} is missing or was changed. Nothing was restored. Remedy: use "
                "another copy of this backup, or another backup."
            )
    return backup


def _described(file: Path) -> dict[str, Any]:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}
