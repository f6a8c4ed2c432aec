"""Our superset of Flower's wire against the descriptors of the flwr that is installed."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import flwr.proto
import pytest
from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    FileDescriptor,
    ServiceDescriptor,
)

from flower_nats.wire import common_pb2, control_pb2, fleet_pb2, runtime_pb2
from flower_nats.wire.methods import BY_NAME, CONTROL, FLEET, RUNTIME, Method

OURS = (common_pb2, fleet_pb2, runtime_pb2, control_pb2)

# How a field is written, by its type (protobuf's encoding): what differs here cannot be read.
VARINT, FIXED64, LENGTH, FIXED32 = range(4)
F = FieldDescriptor
WIRE_TYPES = {
    F.TYPE_DOUBLE: FIXED64,
    F.TYPE_FLOAT: FIXED32,
    F.TYPE_STRING: LENGTH,
    F.TYPE_BYTES: LENGTH,
    F.TYPE_MESSAGE: LENGTH,
}


def stock_files() -> Iterator[FileDescriptor]:
    for module in pkgutil.iter_modules(flwr.proto.__path__, "flwr.proto."):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(module.name).DESCRIPTOR


def messages_of(files: Iterator[FileDescriptor]) -> dict[str, Descriptor]:
    return {name: message for file in files for name, message in file.message_types_by_name.items()}


STOCK_FILES = tuple(stock_files())
STOCK = messages_of(iter(STOCK_FILES))
DECLARED = messages_of(module.DESCRIPTOR for module in OURS)


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_a_declared_message_is_stocks(name: str) -> None:
    ours, stock = fields_of(DECLARED[name]), fields_of(STOCK[name])

    assert ours.keys() == stock.keys()
    for number, field in ours.items():
        assert_reads_the_same(field, stock[number])


def fields_of(message: Descriptor) -> dict[int, FieldDescriptor]:
    return dict(message.fields_by_number)


def assert_reads_the_same(ours: FieldDescriptor, stock: FieldDescriptor) -> None:
    assert ours.name == stock.name
    assert encoding(ours) == encoding(stock), ours.full_name
    assert ours.is_repeated == stock.is_repeated, ours.full_name
    # A message that we pass through as bytes must still be told from one that is not there.
    if not ours.is_repeated:
        assert ours.has_presence or not stock.has_presence, ours.full_name
        assert one_of(ours) == one_of(stock), ours.full_name
    ours_entry, stock_entry = map_entry(ours), map_entry(stock)
    if ours_entry is not None and stock_entry is not None:
        for part in ("key", "value"):
            assert encoding(ours_entry[part]) == encoding(stock_entry[part]), ours.full_name


def encoding(field: FieldDescriptor) -> tuple[int, bool]:
    """How a field is written: the wire type, and whether it is zigzag-coded (sint)."""
    zigzag = field.type in (F.TYPE_SINT32, F.TYPE_SINT64)
    return WIRE_TYPES.get(field.type, VARINT), zigzag


def one_of(field: FieldDescriptor) -> str | None:
    """The name of a real oneof; an `optional` is a oneof of its own in name only."""
    group = field.containing_oneof
    return None if group is None or group.name.startswith("_") else group.name


def map_entry(field: FieldDescriptor) -> dict[str, FieldDescriptor] | None:
    message = field.message_type
    if message is None or not message.GetOptions().map_entry:
        return None
    return dict(message.fields_by_name)


def stock_services() -> dict[str, ServiceDescriptor]:
    return {
        name: service for file in STOCK_FILES for name, service in file.services_by_name.items()
    }


@pytest.mark.parametrize("methods", [FLEET, RUNTIME, CONTROL], ids=lambda m: m[0].api)
def test_every_rpc_of_stock_is_in_the_table_and_no_other(methods: tuple[Method, ...]) -> None:
    stock = stock_services()[methods[0].grpc_services[0]].methods_by_name

    assert {method.name for method in methods} == set(stock)
    for method in methods:
        described = stock[method.name]
        assert method.request.DESCRIPTOR.name == described.input_type.name
        assert method.response.DESCRIPTOR.name == described.output_type.name
        assert method.streams == described.server_streaming
        assert method.path == f"/{described.containing_service.full_name}/{method.name}"


def test_the_table_has_no_rpc_twice() -> None:
    assert len(BY_NAME) == len(FLEET) + len(RUNTIME) + len(CONTROL)
