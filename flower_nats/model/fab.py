"""Flower App Bundles: the rules for a FAB before a run uses it.

A FAB is a zip archive with a `pyproject.toml` at its root and a list of its files. The rules are
stock's (flwr 1.33 `common/config.py`, `supercore/fab_format_version.py`, `supercore/object_ref.py`,
`cli/install.py`), because `flwr-serverapp` and the SuperNodes apply them again to the FABs that we
send.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tomli
from packaging.version import InvalidVersion, Version

from flower_nats.model.config import Config, InvalidConfig, flatten
from flower_nats.model.errors import FlowerNatsError
from flower_nats.model.fab_archive import FabArchive
from flower_nats.model.fab_format import check_format
from flower_nats.model.long_texts import cut_middle
from flower_nats.model.task import TaskType
from flower_nats.model.visible import is_visible_name

MAX_FAB_BYTES = 10 * 1024 * 1024
"""The largest FAB that stock SuperNodes and ServerApps are built for (flwr 1.33 FAB_MAX_SIZE)."""

_MAX_PROJECT_BYTES = 256 * 1024
"""Bytes: a larger `pyproject.toml` is not read, because a zip archive may unpack to more than
memory."""

_LONGEST = 80
"""Characters of a name, a publisher and a version: together they name one folder."""

_LONGEST_TEXT = 1_000
"""Bytes of a description, of which lists of apps have many."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")

_PROJECT_FILE = "pyproject.toml"
_PATTERN_KEYS = ("fab-include", "fab-exclude")
_COMPONENTS = ("agentapp", "serverapp", "clientapp")


class InvalidFab(FlowerNatsError):
    """The bytes are not a valid FAB; the text says why, for the one who submitted them."""


@dataclass(frozen=True)
class FabInfo:
    """What a FAB declares."""

    fab_hash: str
    """SHA-256 of its bytes, in hex."""
    fab_id: str
    """`publisher/name`."""
    version: str
    config: Config
    """The app's configuration, flattened."""
    task_type: TaskType
    """The type of the primary task of this app's runs."""
    display_name: str = ""
    """The display name, if it differs from `fab_id`."""
    description: str = ""
    color: str = ""


def read_fab(content: bytes) -> FabInfo:
    """Check a FAB and return what it declares; raises `InvalidFab`.

    This unpacks the whole FAB. A stranger's FAB should be read in a process of its own.
    """
    check_size(content)
    try:
        archive = FabArchive(content)
        project = _parse_project(_read_project(archive))
        app = _check_sections(project)
        config = flatten(app.get("config", {}))
        check_format(project)
        archive.check_installable()
    except (InvalidConfig, ValueError) as exc:
        raise InvalidFab(str(exc)) from exc
    # Nesting of the TOML, of its tables, or of a dependency's marker.
    except RecursionError as exc:
        raise InvalidFab(f"The app's {_PROJECT_FILE} is nested too deeply to be read.") from exc
    components = app["components"]
    return FabInfo(
        fab_hash=hashlib.sha256(content).hexdigest(),
        fab_id=f"{app['publisher']}/{project['project']['name']}",
        version=project["project"]["version"],
        config=config,
        task_type=TaskType.AGENT_APP if "agentapp" in components else TaskType.SERVER_APP,
        display_name=_text(app, "display-name"),
        description=_text(project["project"], "description"),
        color=_text(app, "color"),
    )


def read_config(content: bytes) -> Config:
    """Return the configuration in an accepted FAB; nothing else is unpacked.

    Raises `InvalidFab` if the rules for FABs have changed since.
    """
    try:
        app = _check_sections(_parse_project(_read_project(FabArchive(content))))
        return flatten(app.get("config", {}))
    except (InvalidConfig, ValueError, RecursionError) as exc:
        raise InvalidFab(str(exc)) from exc


def check_size(content: bytes) -> None:
    """Check that a FAB is not too large to be read; raises `InvalidFab`."""
    if len(content) > MAX_FAB_BYTES:
        raise InvalidFab(
            f"The app's FAB has {len(content):,} bytes, and at most {MAX_FAB_BYTES:,} "
            "(10 MiB) are accepted. Exclude data and models from it with "
            '"fab-exclude" in pyproject.toml.'
        )


def _read_project(archive: FabArchive) -> str:
    """Return the text of the archive's `pyproject.toml`."""
    raw = archive.read(_PROJECT_FILE, _MAX_PROJECT_BYTES)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidFab(f"The app's {_PROJECT_FILE} is not UTF-8 text.") from exc


def _parse_project(text: str) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    # Besides tomli's own error: Python reads no number of more than 4,300 digits.
    except ValueError as exc:
        raise InvalidFab(f"The app's {_PROJECT_FILE} is not valid TOML: {exc}") from exc


def _check_sections(project: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check that the required sections and properties exist; return `tool.flwr.app`."""
    of_project = _table(project, "project")
    problems = []
    if not _is_name(of_project.get("name")):
        problems.append(
            'property "name" must be present in [project], a name as PEP 508 has them: letters, digits '
            f'and, between them, ".", "_" and "-", at most {_LONGEST} in all'
        )
    if not _is_version(of_project.get("version")):
        problems.append(
            'property "version" must be present in [project], a version as PEP 440 has them, such as '
            f'"1.0.0", of at most {_LONGEST} characters'
        )
    if not isinstance(project.get("project"), dict):
        problems = ["section [project] is missing"]
    app = _table(_table(_table(project, "tool"), "flwr"), "app")
    problems += _check_app(app) if app else ["section [tool.flwr.app] is missing"]
    if problems:
        raise InvalidFab(f"The app's {_PROJECT_FILE} is incomplete: {'; '.join(problems)}.")
    return app


def _check_app(app: Mapping[str, Any]) -> list[str]:
    problems = []
    if not _is_publisher(app.get("publisher")):
        problems.append(
            'property "publisher" must be present in [tool.flwr.app], text without "/", "\\" and '
            f"control characters, of at most {_LONGEST} characters"
        )
    problems += [
        f'property "{key}" in [tool.flwr.app] must be a list of patterns that is not empty'
        for key in _PATTERN_KEYS
        if key in app and not _is_pattern_list(app[key])
    ]
    if not isinstance(app.get("config", {}), dict):
        problems.append("[tool.flwr.app.config] must be a table")
    components = app.get("components")
    if not isinstance(components, dict):
        return [*problems, "section [tool.flwr.app.components] is missing"]
    return problems + _check_components(components)


def _check_components(components: Mapping[str, Any]) -> list[str]:
    needed = () if "agentapp" in components else ("serverapp", "clientapp")
    problems = [
        f'property "{name}" is missing in [tool.flwr.app.components]'
        for name in needed
        if name not in components
    ]
    problems += [
        f'property "{name}" in [tool.flwr.app.components] must be of the form "module:attribute"'
        for name in _COMPONENTS
        if name in components and not _is_reference(components[name])
    ]
    return problems


def _table(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _text(table: Mapping[str, Any], key: str) -> str:
    """Return a text for people, empty if there is none."""
    value = table.get(key)
    return cut_middle(value, _LONGEST_TEXT) if isinstance(value, str) else ""


# Stock joins publisher, name and version to the name of the app's folder. A version such as
# "../../x" would lead out of the place for apps.
def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and bool(_NAME.fullmatch(value))


def _is_version(value: object) -> bool:
    if not isinstance(value, str) or len(value) > _LONGEST or value != value.strip():
        return False
    try:
        Version(value)
    except InvalidVersion:
        return False
    return True


def _is_publisher(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST
        and is_visible_name(value)
        and not set(value) & {"/", "\\"}
    )


def _is_pattern_list(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(pattern, str) and pattern.strip() for pattern in value)
    )


def _is_reference(value: object) -> bool:
    if not isinstance(value, str):
        return False
    module, _, attribute = value.partition(":")
    return bool(module) and bool(attribute)
