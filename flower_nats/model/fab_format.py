"""The `fab-format-version` of an app and what each version demands (flwr 1.33).

Version 0, the default, demands that `[project].dependencies` names flwr at most once. Version 1
also demands a licence file, an inclusive lower bound on flwr, and a target version within it.
"""

from collections.abc import Mapping
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from flower_nats.model.visible import is_visible_name

_MAX_DEPENDENCIES = 200
"""Dependencies of one app. Reading each takes time."""

_MAX_DEPENDENCY = 500
"""Characters of one dependency, with its URL or its marker."""

_LICENCE_FILES = ("LICENSE", "LICENSE.md")


def check_format(project: Mapping[str, Any]) -> None:
    """Check the parsed `pyproject.toml` of an app; raises ValueError with the reason."""
    app = project["tool"]["flwr"]["app"]
    version = app.get("fab-format-version", 0)
    if type(version) is not int or version not in (0, 1):
        raise ValueError(f"The fab-format-version {version!r} is not supported: it must be 0 or 1.")
    requirement = _flwr_requirement(project["project"].get("dependencies"))
    if version == 1:
        _check_licence(project["project"].get("license"))
        _check_target(app.get("flwr-version-target"), requirement)


def _flwr_requirement(dependencies: object) -> Requirement | None:
    """Return the app's one requirement of flwr, None if it has none."""
    if dependencies is None:
        return None
    if not isinstance(dependencies, list) or not all(isinstance(d, str) for d in dependencies):
        raise ValueError("[project].dependencies must be a list of strings.")
    if len(dependencies) > _MAX_DEPENDENCIES:
        raise ValueError(
            f"[project].dependencies has {len(dependencies):,} entries, and at most "
            f"{_MAX_DEPENDENCIES} are accepted. Leave out packages that the others depend on "
            "anyway."
        )
    for dependency in dependencies:
        if len(dependency) > _MAX_DEPENDENCY:
            raise ValueError(
                f'The entry "{dependency[:80]}…" of [project].dependencies has {len(dependency):,} '
                f"characters, and at most {_MAX_DEPENDENCY} are accepted."
            )
        if not is_visible_name(dependency):
            raise ValueError(
                f'The entry "{dependency}" of [project].dependencies has control characters.'
            )
    try:
        requirements = [Requirement(dependency) for dependency in dependencies]
    except InvalidRequirement as exc:
        raise ValueError(f"[project].dependencies holds an invalid entry: {exc}") from exc
    of_flwr = [requirement for requirement in requirements if requirement.name == "flwr"]
    if len(of_flwr) > 1:
        raise ValueError("[project].dependencies names flwr more than once.")
    return of_flwr[0] if of_flwr else None


def _check_licence(licence: object) -> None:
    if not isinstance(licence, dict) or licence.get("file") not in _LICENCE_FILES:
        raise ValueError(
            "fab-format-version 1 needs [project].license to be "
            '{ file = "LICENSE" } or { file = "LICENSE.md" }.'
        )


def _check_target(target: object, requirement: Requirement | None) -> None:
    if not isinstance(target, str):
        raise ValueError("fab-format-version 1 needs [tool.flwr.app].flwr-version-target.")
    bounds = [s for s in requirement.specifier if s.operator == ">="] if requirement else []
    if requirement is None or not bounds:
        raise ValueError(
            'fab-format-version 1 needs a dependency on flwr with a lower bound (">=").'
        )
    try:
        version = Version(target)
    except InvalidVersion as exc:
        raise ValueError("[tool.flwr.app].flwr-version-target is not a valid version.") from exc
    if version not in requirement.specifier:
        raise ValueError(
            "[tool.flwr.app].flwr-version-target does not satisfy the dependency on flwr."
        )
