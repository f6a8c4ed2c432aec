"""The contents of the nodes' messages: real Flower records, so that every object id is right.

Contents are those that Flower's own strategies exchange: an instruction holds arrays and a config,
a reply holds arrays and metrics. Arrays are split into objects as Flower splits them.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from flwr.app import MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)

from benchmarks.stock.records import arrays, serial
from flower_nats.wire import common_pb2 as common


@dataclass(frozen=True)
class ReplyContent:
    """A reply's content, deflated before the exchange.

    Real nodes run on other machines. Here, the server under test shares its cores with the
    generator, so the nodes' own computing must not be part of the exchange.
    """

    tree: common.ObjectTree
    objects: dict[str, bytes]
    """By id; each object before its parents."""


def reply_content(size: int) -> ReplyContent:
    """Return a trained model of ``size`` bytes, unlike any other, and its metrics."""
    metrics = MetricRecord({"num-examples": 100, "loss": float(next(serial))})
    record = RecordDict({"arrays": arrays(size), "metrics": metrics})
    with no_object_id_recompute():
        nested = get_all_nested_objects(record)
        objects = {object_id: item.deflate() for object_id, item in nested.items()}
        tree = common.ObjectTree.FromString(get_object_tree(record).SerializeToString())
    return ReplyContent(tree, objects)


@dataclass(frozen=True)
class Reply:
    """A reply as PushMessages and PushObject send it.

    ``message`` is without content, ``tree`` its object tree, ``objects`` every object of the tree by
    id, each before its parents.
    """

    message: common.Message
    tree: bytes
    objects: dict[str, bytes]


def reply_to(instruction: common.Message, content: ReplyContent) -> Reply:
    """Return a ClientApp's reply to ``instruction`` (flwr `app/message/message.py`)."""
    asked, created_at = instruction.metadata, time.time()
    metadata = common.Metadata(
        run_id=asked.run_id,
        src_node_id=asked.dst_node_id,
        dst_node_id=asked.src_node_id,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        ttl=asked.ttl - (created_at - asked.created_at),
        message_type=asked.message_type,
        created_at=created_at,
    )
    if asked.HasField("dst_task_id"):
        metadata.src_task_id = asked.dst_task_id
    if asked.HasField("src_task_id"):
        metadata.dst_task_id = asked.src_task_id
    body = common.Message(metadata=metadata).SerializeToString(deterministic=True)
    item = f"Message {content.tree.object_id} {len(body)}".encode() + b"\0" + body
    metadata.message_id = hashlib.sha256(item).hexdigest()
    tree = common.ObjectTree(object_id=metadata.message_id, children=[content.tree])
    return Reply(
        message=common.Message(metadata=metadata, content=b""),
        tree=tree.SerializeToString(),
        objects={**content.objects, metadata.message_id: item},
    )
