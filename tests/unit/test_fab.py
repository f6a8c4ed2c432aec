"""Valid FABs, and the errors of invalid FABs."""

from __future__ import annotations

import re

import pytest
import tomli
from flwr.common.config import get_fab_config, get_metadata_from_config
from hypothesis import given
from hypothesis import strategies as st

from flower_nats.model.fab import MAX_FAB_BYTES, InvalidFab, read_fab
from flower_nats.model.task import TaskType
from harness.fabs import pack

PROJECT = """
[project]
name = "app"
version = "1.2.3"
dependencies = ["flwr>=1.26", "numpy"]
[tool.flwr.app]
publisher = "somebody"
[tool.flwr.app.components]
serverapp = "app.server:app"
clientapp = "app.client:app"
[tool.flwr.app.config]
rounds = 3
train.rate = 0.1
train.deep.name = "x"
quick = true
"""

FORMAT_1 = """
[project]
name = "app"
version = "1"
license = {{ file = "LICENSE" }}
dependencies = ["flwr{bound}"]
[tool.flwr.app]
publisher = "somebody"
fab-format-version = 1
flwr-version-target = "{target}"
[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:client"
"""

DEEP = ".".join("a" * 900)
"""A TOML key of nested tables: one key can be read, two exceed Python's recursion limit."""


def fab(project: str | bytes, name: str = "pyproject.toml") -> bytes:
    return pack({name: project})


def reason(content: bytes) -> str:
    with pytest.raises(InvalidFab) as refused:
        read_fab(content)
    return str(refused.value)


def test_a_valid_fab_says_what_it_is() -> None:
    info = read_fab(fab(PROJECT))

    assert (info.fab_id, info.version) == ("somebody/app", "1.2.3")
    assert info.task_type is TaskType.SERVER_APP
    assert info.config == {"rounds": 3, "train.rate": 0.1, "train.deep.name": "x", "quick": True}


def test_stock_reads_the_same_in_a_fab() -> None:
    info = read_fab(fab(PROJECT))

    assert get_metadata_from_config(get_fab_config(fab(PROJECT))) == (info.fab_id, info.version)


def test_an_agent_needs_no_other_component() -> None:
    project = PROJECT.replace('serverapp = "app.server:app"', 'agentapp = "app:agent"')

    assert read_fab(fab(project)).task_type is TaskType.AGENT_APP


def test_a_fab_that_is_too_large_is_told_its_size_and_the_limit() -> None:
    text = reason(b"x" * (MAX_FAB_BYTES + 1))

    assert "10,485,761" in text
    assert "10,485,760" in text


def test_an_archive_that_swells_up_is_not_read() -> None:
    assert "larger than" in reason(fab(b"#" * 50_000_000))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a readable zip archive"),
        (b"not a zip", "not a readable zip archive"),
        (fab(PROJECT)[:-30], "not a readable zip archive"),
        (fab(PROJECT, "other.toml"), "holds no pyproject.toml"),
        (fab(b"\xff\xfe"), "not UTF-8"),
        (fab("= nonsense"), "not valid TOML"),
        (fab("a = " + "[" * 5000), "nested too deeply"),
        (fab(PROJECT.replace("rounds = 3", f"rounds = {'3' * 5000}")), "not valid TOML"),
        (fab(f"{PROJECT}[tool.flwr.app.config.{DEEP}]\n{DEEP} = 1"), "nested too deeply"),
        (fab(PROJECT.replace('"numpy"', f'"numpy; {"(" * 400}"')), "invalid entry"),
        (fab(PROJECT.replace('"numpy"', f'"a{"," * 500}"')), "501 characters, and at most 500"),
        (fab(PROJECT.replace('"numpy"', '"numpy",' * 200)), "201 entries, and at most 200"),
        (
            fab(PROJECT.replace('"numpy"', r'"numpy; os_name == \"\u001b\""')),
            "has control characters",
        ),
        (fab("[project]\n"), '"name" must be present in [project], a name as PEP 508'),
        (fab("[tool]\n"), "section [project] is missing"),
        (fab("[tool]\n"), "section [tool.flwr.app] is missing"),
        (fab("project = 3\ntool = 4"), "section [project] is missing"),
        (fab(PROJECT.replace('publisher = "somebody"', "")), '"publisher"'),
        (fab(PROJECT.replace("serverapp", "other")), '"serverapp" is missing'),
        (fab(PROJECT.replace("clientapp", "other")), '"clientapp" is missing'),
        (fab(PROJECT.replace("app.client:app", "app.client")), '"module:attribute"'),
        (fab(PROJECT.replace("[tool.flwr.app.components]", "[tool.x]")), "components] is missing"),
        (fab(PROJECT.replace('"1.2.3"', "3")), '"version" must be present'),
        (fab(PROJECT.replace("rounds = 3", "rounds = [3]")), '"rounds" must be a boolean'),
        (fab(PROJECT.replace('"numpy"', '"flwr>1"')), "names flwr more than once"),
        (fab(PROJECT.replace('"numpy"', '"= ="')), "invalid entry"),
        (fab(PROJECT.replace('"numpy"', "3")), "must be a list of strings"),
        (
            fab(PROJECT.replace("publisher", "fab-include = []\npublisher")),
            '"fab-include" in [tool.flwr.app] must be a list',
        ),
        (
            fab(PROJECT.replace("publisher", "fab-format-version = 2\npublisher")),
            "must be 0 or 1",
        ),
    ],
)
def test_an_invalid_fab_is_refused_with_the_reason(content: bytes, said: str) -> None:
    assert said in reason(content)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", r"e\u001b[2J"),
        ("name", "a b"),
        ("name", "späße"),
        ("name", "-app"),
        ("name", "../app"),
        ("name", "a" * 81),
        ("version", "../../../../x"),
        ("version", r"1.0\u001b[2J"),
        ("version", r"1.0\n"),
        ("version", "newest"),
        ("version", "1." * 40 + "1"),
        ("publisher", r"some\u001b]0;title\u0007body"),
        ("publisher", r"some\u202ebody"),
        ("publisher", r"..\\..\\x"),
        ("publisher", "a" * 81),
    ],
)
def test_names_that_could_do_harm_are_refused(field: str, value: str) -> None:
    """Names may do harm on terminals, and in the folder in which apps are installed."""
    key = re.compile(rf'^{field} = ".*"', re.MULTILINE)

    text = reason(fab(key.sub(lambda _: f'{field} = "{value}"', PROJECT)))

    assert f'property "{field}" must be present' in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a"),
        ("name", "my-app_1.x"),
        ("version", "1!2.0rc1.post2.dev3+local.1"),
        ("version", "v1"),
        ("publisher", "Flower Labs (späße)"),
    ],
)
def test_names_that_people_give_are_accepted(field: str, value: str) -> None:
    key = re.compile(rf'^{field} = ".*"', re.MULTILINE)
    info = read_fab(fab(key.sub(f'{field} = "{value}"', PROJECT)))

    assert value in (info.fab_id.partition("/")[0], info.fab_id.partition("/")[2], info.version)


def test_a_description_has_a_length_that_lists_of_apps_can_carry() -> None:
    said = f'description = "begin {"x" * 200_000} end"\n[tool.flwr.app]\ndisplay-name = "My app"'
    info = read_fab(fab(PROJECT.replace("[tool.flwr.app]", said)))

    assert info.display_name == "My app"
    assert len(info.description.encode()) <= 1_000
    assert info.description.startswith("begin x")
    assert info.description.endswith("x end")


def test_format_1_demands_a_licence_a_bound_and_a_target_within_it() -> None:
    good = FORMAT_1.format(bound=">=1.30", target="1.33.0")
    read_fab(fab(good))

    assert "license" in reason(fab(good.replace('license = { file = "LICENSE" }', "")))
    assert "lower bound" in reason(fab(FORMAT_1.format(bound="<2", target="1.33.0")))
    assert "does not satisfy" in reason(fab(FORMAT_1.format(bound=">=1.34", target="1.33.0")))
    assert "not a valid version" in reason(fab(FORMAT_1.format(bound=">=1", target="new")))
    assert "needs [tool.flwr.app].flwr-version-target" in reason(
        fab(good.replace('flwr-version-target = "1.33.0"', ""))
    )


@given(st.binary(max_size=400))
def test_no_bytes_are_more_than_refused(content: bytes) -> None:
    reason(content)


TOKENS = (
    *("[", "]", "{", "}", '"', "\n", " = ", ".", ",", "a", "[tool.flwr.app.config.a]", "0x", "9"),
    *('"""', "\\u0000", "\\ud800", "1979-99-99", "nan", "-", "e9", "9" * 4_301, DEEP, "[" * 600),
)


@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
def test_whatever_follows_in_a_project_it_is_refused_or_valid(text: str) -> None:
    try:
        assert read_fab(fab(PROJECT + text)).version
    except InvalidFab as refused:
        assert str(refused)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_fab_is_refused_or_still_says_what_it_is(position: int, change: int) -> None:
    content = bytearray(fab(PROJECT))
    content[position % len(content)] ^= change
    try:
        assert read_fab(bytes(content)).version
    except InvalidFab as refused:
        assert str(refused)


VALUES = st.recursive(
    st.one_of(st.integers(-5, 5), st.booleans(), st.text("ab:.", max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=6,
)


def inline(value: object) -> str:
    """Write a value in TOML's inline form."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {inline(one)}' for key, one in value.items())}}}"
    return f'"{value}"' if isinstance(value, str) else str(value)


@given(VALUES, VALUES, VALUES, VALUES)
def test_whatever_a_project_holds_it_is_refused_or_valid_for_stock_too(
    publisher: object, components: object, config: object, dependencies: object
) -> None:
    project = (
        f'[project]\nname = "a"\nversion = "1"\ndependencies = {inline(dependencies)}\n'
        f"[tool.flwr.app]\npublisher = {inline(publisher)}\n"
        f"components = {inline(components)}\nconfig = {inline(config)}\n"
    )
    tomli.loads(project)
    try:
        read_fab(fab(project))
    except InvalidFab as refused:
        assert str(refused)
    else:
        get_fab_config(fab(project))
