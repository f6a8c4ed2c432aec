"""The parsing of messages, trees, objects and subjects, for any bytes."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from hypothesis import given
from hypothesis import strategies as st

from flower_nats.broker import subjects
from flower_nats.broker.subjects import ANY, InstructionKey, ReplyKey, SessionKey
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import messages
from flower_nats.wire.messages import (
    MessageError,
    check_message,
    check_object,
    error_reply,
    object_ids,
)
from flower_nats.wire.prompt import prompt_message
from harness.messages import inflate, instruction, parcel, reply

ids = st.integers(0, 2**64 - 1)
hex_ids = st.binary(min_size=32, max_size=32).map(bytes.hex)
sessions = st.uuids().map(lambda value: value.hex)


@given(ids, ids, sessions, hex_ids)
def test_an_instructions_subject_reads_back(run: int, node: int, session: str, one: str) -> None:
    subject = subjects.instruction(run, node, session, one)
    assert subjects.parse(subject) == InstructionKey(run, node, session, one)


@given(ids, sessions, hex_ids, hex_ids)
def test_a_replys_subject_reads_back(run: int, session: str, question: str, one: str) -> None:
    key = subjects.parse(subjects.reply(run, session, question, one))
    assert key == ReplyKey(run, session, question, one)
    assert isinstance(key, ReplyKey)
    assert key.subject == subjects.reply(run, session, question, one)


@given(ids, sessions, st.integers(0, 100))
def test_a_sessions_subjects_read_back(run: int, session: str, part: int) -> None:
    assert subjects.parse(subjects.push(run, session, part)) == SessionKey(run, session, False)
    assert subjects.parse(subjects.released(run, session)) == SessionKey(run, session, True)


def test_every_subject_lies_in_the_stream_that_holds_it() -> None:
    prefix = subjects.MESSAGES_SUBJECTS.removesuffix(">")
    for subject in (
        subjects.instruction(1, 2, "s", "m"),
        subjects.reply(1, ANY, "i", "m"),
        subjects.push(1, "s", 0),
        subjects.released(1, "s"),
    ):
        assert subject.startswith(prefix)
    assert subjects.object_head(1, "o").startswith(subjects.OBJECTS_SUBJECTS.removesuffix(">"))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_tree_or_refused(data: bytes) -> None:
    try:
        found = object_ids(data)
    except ApiError as exc:
        assert exc.code is ErrorCode.MALFORMED_REQUEST
    else:
        assert all(len(one) == 64 for one in found)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_object_or_refused(content: bytes) -> None:
    object_id = hashlib.sha256(content).hexdigest()
    with pytest.raises(ApiError):
        check_object("0" * 64, content)
    try:
        check_object(object_id, content)
    except ApiError as exc:
        assert exc.code is ErrorCode.MALFORMED_REQUEST


@given(st.builds(common.Metadata, message_id=st.text(max_size=70), ttl=st.floats()), st.booleans())
def test_any_metadata_is_refused_with_a_reason(metadata: common.Metadata, is_reply: bool) -> None:
    tree = common.ObjectTree(object_id="ab" * 32).SerializeToString()
    with pytest.raises(ApiError) as refused:
        check_message(common.Message(metadata=metadata), tree, is_reply=is_reply)
    assert refused.value.public_details


def test_everything_flwr_makes_is_accepted() -> None:
    content = RecordDict(
        {
            "model": ArrayRecord([np.zeros((300, 300)), np.ones(3)]),
            "metrics": MetricRecord({"loss": 0.5}),
            "config": ConfigRecord({"lr": 0.1, "name": "x"}),
        }
    )
    question = instruction(7, 8, content)
    answer = reply(question, content)
    for one, is_reply in ((question, False), (answer, True)):
        check_message(one.proto, one.outgoing.tree, is_reply=is_reply)
        assert set(object_ids(one.outgoing.tree)) == set(one.objects)
        for object_id, data in one.objects.items():
            check_object(object_id, data)


def test_an_error_of_a_client_is_a_reply_like_any_other() -> None:
    question = instruction(7, 8)
    failed = parcel(Message(Error(1, "boom"), reply_to=question.flwr), 7, 8)
    check_message(failed.proto, failed.outgoing.tree, is_reply=True)


@pytest.mark.parametrize("code", list(MessageError))
def test_flwr_reads_the_error_replies_that_we_make(code: MessageError) -> None:
    question = instruction(7, 8)
    outgoing, content = error_reply(code, 7, question.message_id, question.outgoing.metadata)
    message_id = outgoing.metadata.message_id
    message = inflate(message_id, {message_id: content})
    assert message.error.code == int(code)
    assert message.metadata.reply_to_message_id == question.message_id
    assert message.metadata.run_id == 7
    assert message.object_id == message_id
    assert get_object_tree(message).SerializeToString() == outgoing.tree


def test_an_error_reply_goes_to_the_task_that_asked() -> None:
    question = instruction(7, 8).outgoing.metadata
    question.src_task_id, question.dst_task_id = 11, 12

    outgoing, _ = error_reply(MessageError.NODE_UNAVAILABLE, 7, question.message_id, question)

    assert (outgoing.metadata.src_task_id, outgoing.metadata.dst_task_id) == (12, 11)


def test_flwr_reads_the_prompt_of_an_agent() -> None:
    outgoing, objects = prompt_message(7, "What is new in Zürich?", time.time())

    message = inflate(outgoing.metadata.message_id, dict(objects))

    assert message.content["agent"]["text"] == "What is new in Zürich?"
    assert message.metadata.message_type == "system"
    assert (message.metadata.src_node_id, message.metadata.dst_node_id) == (1, 1)
    assert message.object_id == outgoing.metadata.message_id
    assert get_object_tree(message).SerializeToString() == outgoing.tree
    for object_id, content in objects.items():
        check_object(object_id, content)
    check_message(common.Message.FromString(outgoing.message), outgoing.tree, is_reply=False)


def test_an_error_reply_to_what_is_not_known_is_of_its_run_and_of_no_task() -> None:
    outgoing, _ = error_reply(MessageError.MESSAGE_UNAVAILABLE, 7, "ab" * 32)

    assert outgoing.metadata.run_id == 7
    assert not outgoing.metadata.HasField("src_task_id")
    assert not outgoing.metadata.HasField("dst_task_id")


@pytest.mark.parametrize(
    "tree",
    [
        b"\x12\x00" * 4_000_000,
        b"\x0a\x40" + b"a" * 64 + b"\x12\x00" * 4_000_000,
        b"\x0a\x40" + b"a" * 64 + (b"\x12\x42\x0a\x40" + b"b" * 64) * 200_000,
    ],
    ids=["nodes without an id", "children without an id", "more than anybody has"],
)
def test_a_tree_of_millions_of_nodes_is_refused_before_it_is_parsed(
    tree: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With this, any parsing would fail.
    monkeypatch.setattr(messages, "common", None)

    with pytest.raises(ApiError) as caught:
        object_ids(tree)
    assert caught.value.code is ErrorCode.MALFORMED_REQUEST


def test_a_large_tree_of_any_shape_is_read() -> None:
    tree = common.ObjectTree(object_id=f"{0:064x}")
    for number in range(1, 3000, 2):
        child = tree.children.add(object_id=f"{number:064x}")
        child.children.add(object_id=f"{number + 1:064x}")
    assert len(object_ids(tree.SerializeToString())) == 3001
