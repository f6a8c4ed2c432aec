"""What the messages carry: real Flower records, so that every object id is right.

Contents are what Flower's own strategies exchange: an instruction holds arrays and a config, a
reply holds arrays and metrics. Arrays are split into objects as Flower splits them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)

_serial = itertools.count(1)


def _arrays(size: int) -> ArrayRecord:
    """An array record of ``size`` bytes of values never used before in this process."""
    # The process id would do for a seed, but random contents of two processes differ anyway.
    values = np.random.default_rng().random(size // 4, dtype=np.float32)
    return ArrayRecord([values])


def instruction_content(size: int) -> RecordDict:
    """What a ServerApp broadcasts: a model of ``size`` bytes and the round's config."""
    config = ConfigRecord({"server-round": next(_serial), "lr": 0.1})
    return RecordDict({"arrays": _arrays(size), "config": config})


@dataclass(frozen=True)
class ReplyContent:
    """A reply's content, deflated ahead of the exchange it is for.

    Nodes of a federation run on machines of their own; what they compute before they speak must
    not be charged to the server under test, which shares its cores with the generator.
    """

    record: RecordDict
    tree: Any
    objects: dict[str, bytes]


def reply_content(size: int) -> ReplyContent:
    """A trained model of ``size`` bytes, unlike any other, and its metrics."""
    metrics = MetricRecord({"num-examples": 100, "loss": float(next(_serial))})
    record = RecordDict({"arrays": _arrays(size), "metrics": metrics})
    with no_object_id_recompute():
        nested = get_all_nested_objects(record)
        objects = {object_id: item.deflate() for object_id, item in nested.items()}
        return ReplyContent(record, get_object_tree(record), objects)


@dataclass(frozen=True)
class Reply:
    """A reply as PushMessages and PushObject send it.

    ``message`` is the protobuf message without content, ``tree`` its object tree, ``objects``
    every object of the tree by id, each before its parents.
    """

    message: Any
    tree: Any
    objects: dict[str, bytes]


def reply_to(instruction: ProtoMessage, content: ReplyContent) -> Reply:
    """The reply a ClientApp would return for ``instruction``."""
    message = Message(content.record, reply_to=message_from_proto(instruction))
    with no_object_id_recompute():
        body = message.deflate()
        object_id: str = message.object_id
    message.metadata.__dict__["_message_id"] = object_id
    return Reply(
        message=message_to_proto(remove_content_from_message(message)),
        tree=ObjectTree(object_id=object_id, children=[content.tree]),
        objects={**content.objects, object_id: body},
    )
