"""Our superset of Flower's wire, compared with the descriptors of the installed flwr."""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Iterator

import flwr.proto
import pytest
from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
)

from flower_nats.wire import common_pb2, control_pb2, fleet_pb2, records_pb2, runtime_pb2
from flower_nats.wire.methods import BY_NAME, CONTROL, FLEET, RUNTIME

METHODS = (*FLEET, *RUNTIME, *CONTROL)
OURS = (common_pb2, records_pb2, fleet_pb2, runtime_pb2, control_pb2)

# The encoding of a field by its type: readers of another encoding could not read it.
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


SHARED = sorted(DECLARED.keys() & STOCK.keys())

ANOTHER_NAME = {("Run", 16), ("StreamRunEventsResponse", 1), ("StreamRunEventsResponse", 2)}
"""Fields with another name or use in flwr 1.30 or 1.31; no client of these versions reads them."""


@pytest.mark.parametrize("name", SHARED)
def test_every_field_of_stocks_message_is_ours(name: str) -> None:
    ours = dict(DECLARED[name].fields_by_number)

    for number, field in STOCK[name].fields_by_number.items():
        if (name, number) not in ANOTHER_NAME:
            assert number in ours, field.full_name
            assert_reads_the_same(ours[number], field)


def assert_reads_the_same(ours: FieldDescriptor, stock: FieldDescriptor) -> None:
    assert ours.name == stock.name
    assert encoding(ours) == encoding(stock), ours.full_name
    assert ours.is_repeated == stock.is_repeated, ours.full_name
    # We pass some messages through as bytes: an empty message must differ from a missing one.
    if not ours.is_repeated:
        assert ours.has_presence or not stock.has_presence, ours.full_name
        assert one_of(ours) == one_of(stock), ours.full_name
    ours_entry, stock_entry = map_entry(ours), map_entry(stock)
    if ours_entry is not None and stock_entry is not None:
        for part in ("key", "value"):
            assert encoding(ours_entry[part]) == encoding(stock_entry[part]), ours.full_name


def encoding(field: FieldDescriptor) -> tuple[int, bool]:
    """Return the encoding of a field: the wire type, and whether it is zigzag-coded (sint)."""
    zigzag = field.type in (F.TYPE_SINT32, F.TYPE_SINT64)
    return WIRE_TYPES.get(field.type, VARINT), zigzag


def one_of(field: FieldDescriptor) -> str | None:
    """Return the name of a field's real oneof: the oneof of an `optional` does not count."""
    group = field.containing_oneof
    return None if group is None or group.name.startswith("_") else group.name


def map_entry(field: FieldDescriptor) -> dict[str, FieldDescriptor] | None:
    message = field.message_type
    if message is None or not message.GetOptions().map_entry:
        return None
    return dict(message.fields_by_name)


NEVER_CALLED = {"GetFederationOptions", "StoreApp", "DeleteApp"}
"""RPCs of flwr 1.30, 1.31 and 1.34 that no client of these versions calls."""


def stock_rpcs() -> list[MethodDescriptor]:
    """Return the RPCs of the installed flwr over gRPC: none since 1.40."""
    names = {path.split("/")[1] for method in METHODS for path in method.grpc_paths}
    return [
        rpc
        for file in STOCK_FILES
        for service in file.services_by_name.values()
        if service.full_name in names
        for rpc in service.methods
        if rpc.name not in NEVER_CALLED
    ]


def test_every_rpc_of_stock_is_in_the_table() -> None:
    table = {path: method for method in METHODS for path in method.grpc_paths}

    for rpc in stock_rpcs():
        method = table[f"/{rpc.containing_service.full_name}/{rpc.name}"]
        assert method.request.DESCRIPTOR.name == rpc.input_type.name
        assert method.response.DESCRIPTOR.name == rpc.output_type.name
        assert method.streams == rpc.server_streaming


def stock_routes() -> dict[str, str]:
    """Return the HTTP routes of the installed flwr, with their requests: none before 1.33."""
    if importlib.util.find_spec("flwr.supercore.protobuf") is None:
        return {}
    translation = importlib.import_module("flwr.supercore.protobuf.translation")
    return {
        path: request.DESCRIPTOR.name
        for (_, path), request in translation.PROTOBUF_REQUEST_TYPES.items()
    }


def test_every_route_of_stock_is_in_the_table() -> None:
    table = {method.http_path: method for method in METHODS}

    for path, request in stock_routes().items():
        method = table[path]
        assert method.request.DESCRIPTOR.name == request
        # In all of Flower, the answer to a FooRequest is a FooResponse.
        assert method.response.DESCRIPTOR.name == request.removesuffix("Request") + "Response"
        assert method.response.DESCRIPTOR.name in STOCK


def test_stock_has_what_it_is_checked_against() -> None:
    assert len(SHARED) > 90
    assert len(stock_rpcs()) + len(stock_routes()) > 50


def test_the_table_has_no_rpc_twice() -> None:
    assert len(BY_NAME) == len(METHODS)
    assert len({method.http_path for method in METHODS}) == len(METHODS)
