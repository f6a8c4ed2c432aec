"""Messages for tests, as flwr itself makes them."""

import time
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from flower_nats.wire import common_pb2 as common
from flower_nats.wire.messages import Outgoing


@dataclass(frozen=True)
class Parcel:
    """A message ready for the wire, and the objects that belong to it."""

    flwr: Message
    outgoing: Outgoing
    objects: dict[str, bytes]

    @property
    def message_id(self) -> str:
        return self.outgoing.metadata.message_id

    @property
    def proto(self) -> common.Message:
        return common.Message.FromString(self.outgoing.message)


def as_server_app(run_id: int) -> None:
    """Make flwr treat this process as a run's ServerApp: otherwise it makes no instructions."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, 1, 1


def parcel(message: Message, run_id: int, src_node_id: int) -> Parcel:
    """Make a message ready for the wire as stock clients do."""
    message.metadata.__dict__["_run_id"] = run_id
    message.metadata.__dict__["_src_node_id"] = src_node_id
    message.metadata.__dict__["_message_id"] = message.object_id
    objects = {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
    proto = message_to_proto(remove_content_from_message(message)).SerializeToString()
    tree = get_object_tree(message).SerializeToString()
    return Parcel(message, Outgoing(proto, tree), objects)


def instruction(
    run_id: int, node_id: int, content: RecordDict | None = None, ttl: float = 3600.0
) -> Parcel:
    """An instruction from a ServerApp to a node."""
    as_server_app(run_id)
    content = content or RecordDict({"config": ConfigRecord({"at": time.time_ns()})})
    message = Message(content, dst_node_id=node_id, message_type="train", ttl=ttl)
    return parcel(message, run_id, 1)


def reply(to: Parcel, content: RecordDict | None = None) -> Parcel:
    """A node's reply to an instruction."""
    content = content or RecordDict({"config": ConfigRecord({"at": time.time_ns()})})
    message = Message(content, reply_to=to.flwr)
    return parcel(message, to.flwr.metadata.run_id, to.flwr.metadata.dst_node_id)


def inflate(message_id: str, contents: dict[str, bytes]) -> Message:
    """Build a message from its objects, as a stock client does."""
    found = inflate_object_from_contents(message_id, dict(contents))
    assert isinstance(found, Message)
    return found
