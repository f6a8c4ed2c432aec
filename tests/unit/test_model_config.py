"""Configurations of apps, and the overrides of runs."""

from __future__ import annotations

import pytest
from flwr.common.config import flatten_dict, fuse_dicts, unflatten_dict
from hypothesis import given
from hypothesis import strategies as st

from flower_nats.model.config import Config, InvalidConfig, check_overrides, flatten
from flower_nats.superlink.convert import config_from_wire, config_to_bytes
from flower_nats.wire import common_pb2 as common

NAMES = st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){0,2}", fullmatch=True)
VALUES = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text("xyz é")
)
TABLES = st.recursive(
    VALUES,
    lambda inner: st.dictionaries(st.text("ab", min_size=1, max_size=2), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text("ab", min_size=1, max_size=2), TABLES))
def test_tables_flatten_as_stock_flattens_them(table: dict[str, object]) -> None:
    assert flatten(table) == flatten_dict(table)


def test_a_list_is_no_configuration_value() -> None:
    with pytest.raises(InvalidConfig, match=r'"train\.layers"'):
        flatten({"train": {"layers": [1, 2]}})


@given(st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, VALUES))
def test_overrides_are_refused_when_stock_refuses_them(config: Config, overrides: Config) -> None:
    try:
        fuse_dicts(config, overrides)
    except ValueError:
        with pytest.raises(InvalidConfig):
            check_overrides(config, overrides)
    else:
        check_overrides(config, overrides)


def test_an_unknown_override_is_told_what_there_is() -> None:
    with pytest.raises(InvalidConfig) as refused:
        check_overrides({"rounds": 3, "rate": 0.1}, {"round": 4})

    assert '"round"' in str(refused.value)
    assert '"rate", "rounds"' in str(refused.value)


def scalar(value: object) -> common.Scalar:
    kinds = {bool: "bool", int: "sint64", float: "double", str: "string", bytes: "bytes"}
    return common.Scalar(**{kinds[type(value)]: value})  # type: ignore[arg-type]


@given(st.dictionaries(NAMES, VALUES))
def test_a_configuration_crosses_the_wire_and_the_database(config: Config) -> None:
    run = common.Run(override_config={name: scalar(value) for name, value in config.items()})

    kept = common.Run.FromString(config_to_bytes(run.override_config))

    assert config_from_wire(kept.override_config) == config
    assert all(
        type(config[name]) is type(value)
        for name, value in config_from_wire(kept.override_config).items()
    )


@pytest.mark.parametrize("value", [common.Scalar(), scalar(b"bytes"), common.Scalar(uint64=3)])
def test_a_value_that_no_configuration_holds_is_refused(value: common.Scalar) -> None:
    run = common.Run(override_config={"rounds": value})

    with pytest.raises(InvalidConfig, match="rounds"):
        config_from_wire(run.override_config)


def test_stock_can_nest_again_what_was_flattened() -> None:
    table = {"a": {"b": 1, "c": {"d": "x"}}}

    assert unflatten_dict(dict(flatten(table))) == table
