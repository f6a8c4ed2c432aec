"""The prompt of an AgentApp, as the message that the app expects.

A `flwr-agentapp` of 1.38 or newer begins with a pull of messages, and expects one from the SuperLink to
itself (flwr 1.42 `server/superlink/linkstate/utils.py`, `create_user_prompt_message`): a RecordDict with
one ConfigRecord, `agent`, in which `text` is the prompt.
"""

import json
from collections.abc import Mapping

from flower_nats.model.caller import SUPERLINK_NODE_ID
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.messages import Outgoing, make_object

_TTL = 43_200.0
"""Seconds; flwr's default for a message."""


def prompt_message(
    run_id: int, prompt: str, created_at: float
) -> tuple[Outgoing, Mapping[str, bytes]]:
    """Return the message with a prompt, and the content of its objects by their ids."""
    record = runtime.PromptRecord()
    record.items.add(key="text").value.string = prompt
    record_id, record_object = make_object("ConfigRecord", "", record.SerializeToString())
    table = json.dumps({"agent": record_id}).encode()
    dict_id, dict_object = make_object("RecordDict", record_id, table)
    message = common.Message(
        metadata=common.Metadata(
            run_id=run_id,
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=SUPERLINK_NODE_ID,
            message_type="system",
            created_at=created_at,
            ttl=_TTL,
        )
    )
    body = message.SerializeToString(deterministic=True)
    message_id, message_object = make_object("Message", dict_id, body)
    message.metadata.message_id = message_id
    # In transit it has an empty content, which distinguishes it from an error.
    message.content = b""
    tree = common.ObjectTree(object_id=message_id)
    tree.children.add(object_id=dict_id).children.add(object_id=record_id)
    objects = {record_id: record_object, dict_id: dict_object, message_id: message_object}
    return Outgoing(message.SerializeToString(), tree.SerializeToString()), objects
