"""The hand-written code for objects on the wire, compared with protobuf itself."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from flower_nats.wire import common_pb2 as common
from flower_nats.wire.bulk import read_push_object, write_pull_object_response

CONTENTS = st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(bytes))


@given(
    CONTENTS,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.text(max_size=70),
    st.text(max_size=40),
)
def test_a_request_is_read_as_protobuf_reads_it(
    content: bytes, node_id: int, run_id: int, object_id: str, session_id: str
) -> None:
    request = common.PushObjectRequest(
        node=common.Node(node_id=node_id),
        run_id=run_id,
        object_id=object_id,
        object_content=content,
        session_id=session_id,
    )

    read, found = read_push_object(request.SerializeToString())

    assert found == content
    request.ClearField("object_content")
    assert read == request


def test_of_a_field_that_comes_twice_the_last_counts_as_for_protobuf() -> None:
    body = b"".join(
        common.PushObjectRequest(object_content=content).SerializeToString()
        for content in (b"one", b"two")
    )

    assert bytes(read_push_object(body)[1]) == b"two"


@given(st.binary(max_size=60))
def test_what_protobuf_refuses_is_refused_and_nothing_else(body: bytes) -> None:
    try:
        expected = common.PushObjectRequest.FromString(body)
    except DecodeError:
        with pytest.raises(DecodeError):
            read_push_object(body)
        return
    try:
        read, content = read_push_object(body)
    except DecodeError:
        # Our reader refuses groups, which no message of Flower has.
        return
    assert content == expected.object_content
    assert (read.run_id, read.object_id) == (expected.run_id, expected.object_id)


@given(st.lists(CONTENTS, max_size=4))
def test_an_answer_is_written_as_protobuf_writes_it(pieces: list[bytes]) -> None:
    answer = common.PullObjectResponse.FromString(write_pull_object_response(pieces))

    assert answer == common.PullObjectResponse(
        object_found=True, object_available=True, object_content=b"".join(pieces)
    )
