"""Reading Messages and object trees off the wire, and the rules a Message must keep.

The rules mirror flwr (1.33 to 1.42) `server/utils/validator.py`, `supercore/inflatable/` and, for error
replies, `server/superlink/linkstate/utils.py`.
"""

import hashlib
import re
import time
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from google.protobuf.message import DecodeError

from flower_nats.model.caller import SUPERLINK_NODE_ID
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.wire import common_pb2 as common

OLDEST_CREATED_AT = 1740700800.0
"""Unix time before which no real Message was created (28 February 2025, as stock checks)."""

TTL_TOLERANCE = 0.1
"""Seconds by which a reply may outlive its instruction (flwr `MESSAGE_TTL_TOLERANCE`)."""

_OBJECT_ID = re.compile(r"[0-9a-f]{64}\Z")
_OBJECT_TYPE = re.compile(rb"[A-Za-z_][A-Za-z0-9_.]{0,99}\Z")
_HEAD_BYTES = 4096
_LONGEST_TREE = 100_000
"""The most objects in one message: with 5 MB each, as stock cuts them, 500 GB."""

_ANY_TREE = 128 * 1024
"""Bytes up to which a tree is parsed without a check: a node of two bytes takes 300 when parsed."""

_ID_FIELD = rb"\x0a\x40[0-9a-f]{64}"
_TREE = re.compile(_ID_FIELD + rb"(?:\x12[\x80-\xff]{0,4}[\x00-\x7f]" + _ID_FIELD + rb")*+")
"""The form of a serialized tree of ids: each node but the first has its length before it. Every
node has an id, so a tree's length tells the number of nodes."""

_NODE_BYTES = 68


class MessageError(IntEnum):
    """Codes of error replies that the SuperLink itself makes (flwr `common/constant.py`)."""

    REPLY_UNAVAILABLE = 4
    NODE_UNAVAILABLE = 5
    MESSAGE_UNAVAILABLE = 3


_REASONS = {
    MessageError.MESSAGE_UNAVAILABLE: (
        "Message unavailable: it is not known here. It may have expired (its TTL), its SuperNode may "
        "have left the federation, or it never existed."
    ),
    MessageError.REPLY_UNAVAILABLE: "Reply unavailable: it expired before it was pulled.",
    MessageError.NODE_UNAVAILABLE: (
        "Node unavailable: the destination SuperNode has sent no heartbeat for twice its interval, or "
        "was unregistered."
    ),
}


@dataclass(frozen=True)
class Outgoing:
    """A Message without its content, and the tree of objects that make up the content."""

    message: bytes
    """The serialized `Message`: metadata and perhaps an error."""
    tree: bytes
    """The serialized `ObjectTree`."""

    @cached_property
    def head(self) -> common.Message:
        """The message, without its content."""
        return common.Message.FromString(self.message)

    @property
    def metadata(self) -> common.Metadata:
        """The message's metadata."""
        return self.head.metadata

    @cached_property
    def object_ids(self) -> tuple[str, ...]:
        """The ids of all its objects, each once, children first; raises like `object_ids`."""
        return tuple(object_ids(self.tree))

    @property
    def size(self) -> int:
        """Bytes of both."""
        return len(self.message) + len(self.tree)


def object_ids(tree: bytes) -> list[str]:
    """Return the ids of all objects of a tree, each once, children first.

    Raises `ApiError` (MALFORMED_REQUEST) if it is not a tree of SHA-256 ids.
    """
    if len(tree) > _ANY_TREE and not _TREE.fullmatch(tree):
        raise malformed("the object tree has more in it than ids")
    if len(tree) // _NODE_BYTES > _LONGEST_TREE:
        raise malformed(f"a message may have at most {_LONGEST_TREE} objects")
    try:
        root = common.ObjectTree.FromString(tree)
    except DecodeError as exc:
        raise malformed("the object tree cannot be read") from exc
    found: dict[str, None] = {}
    _collect(root, found)
    return list(found)


def _collect(tree: common.ObjectTree, found: dict[str, None]) -> None:
    for child in tree.children:
        _collect(child, found)
    if not _OBJECT_ID.match(tree.object_id):
        raise malformed(f"{tree.object_id[:80]!r} is not an object id (64 hex digits)")
    found[tree.object_id] = None


def check_message(message: common.Message, tree: bytes, *, is_reply: bool) -> None:
    """Check a Message against the rules for instructions or replies.

    Raises `ApiError` (MALFORMED_REQUEST) that names every rule broken.
    """
    check_head(message, is_reply=is_reply)
    check_tree(message, tree)


def check_head(message: common.Message, *, is_reply: bool) -> None:
    """Check a Message without its tree. Raises `ApiError` (MALFORMED_REQUEST)."""
    broken = _broken_rules(message, is_reply)
    if is_reply and message.metadata.reply_to_message_id:
        check_message_id(message.metadata.reply_to_message_id)
    if broken:
        raise malformed("; ".join(broken))


def check_tree(message: common.Message, tree: bytes) -> None:
    """Check the tree of a Message, which may be large. Raises `ApiError` (MALFORMED_REQUEST)."""
    if message.metadata.message_id not in object_ids(tree)[-1:]:
        raise malformed("the message id must be the id of its object tree's root")


def _broken_rules(message: common.Message, is_reply: bool) -> list[str]:
    metadata = message.metadata
    rules = [
        (
            metadata.created_at >= OLDEST_CREATED_AT,
            "`created_at` must be the Unix time in seconds",
        ),
        (metadata.ttl > 0, "`ttl` must be higher than zero"),
        (metadata.ttl <= 0 or not expired(metadata), "the message's TTL has expired"),
        (bool(metadata.message_type), "`message_type` must be set"),
        (
            message.HasField("content") != message.HasField("error"),
            "either `content` or `error` must be set, and not both",
        ),
        (bool(metadata.dst_node_id), "`dst_node_id` must be set"),
        (bool(metadata.reply_to_message_id) == is_reply, _reply_rule(is_reply)),
        (
            (metadata.src_node_id == SUPERLINK_NODE_ID) != is_reply,
            f"`src_node_id` must {'not ' if is_reply else ''}be {SUPERLINK_NODE_ID}, the SuperLink",
        ),
        (
            # An instruction to the SuperLink is well formed, but has no receiver here.
            metadata.dst_node_id == SUPERLINK_NODE_ID or not is_reply,
            f"`dst_node_id` must be {SUPERLINK_NODE_ID}, the SuperLink",
        ),
    ]
    return [text for kept, text in rules if not kept]


def _reply_rule(is_reply: bool) -> str:
    return f"`reply_to_message_id` must {'' if is_reply else 'not '}be set"


def is_object_id(value: str) -> bool:
    """Return whether a value is an object id: a SHA-256 in 64 hex digits."""
    return _OBJECT_ID.match(value) is not None


def check_message_id(value: str) -> None:
    """Check that a value is a message or object id, because it becomes part of a subject.

    Raises `ApiError` (MALFORMED_REQUEST).
    """
    if not is_object_id(value):
        raise malformed("a message id has 64 hex digits")


def expires_at(metadata: common.Metadata) -> float:
    """Return the Unix time in seconds from which a Message counts as expired."""
    return metadata.created_at + metadata.ttl


def expired(metadata: common.Metadata) -> bool:
    """Return whether a Message has expired."""
    return expires_at(metadata) <= time.time()


def check_object(object_id: str, content: bytes | memoryview) -> None:
    """Check that an object matches its id and has the form of an inflatable object.

    An object is a head `<type> <child ids, comma-separated> <body length>`, a zero byte and the body.
    Raises `ApiError` (MALFORMED_REQUEST).
    """
    if hashlib.sha256(content).hexdigest() != object_id:
        raise malformed(f"the content of object {object_id[:64]!r} does not hash to its id")
    head = _head(content)
    divider = len(head)
    parts = head.split(b" ")
    if divider == len(content) or len(parts) != 3 or not _OBJECT_TYPE.match(parts[0]):
        raise malformed(f"object {object_id} has no proper head")
    children = parts[1].decode("ascii", "replace").split(",") if parts[1] else []
    if not all(_OBJECT_ID.match(child) for child in children):
        raise malformed(f"object {object_id} names a child that is not an object id")
    if parts[2] != b"%d" % (len(content) - divider - 1):
        raise malformed(f"object {object_id} is not as long as its head says")


def _head(content: bytes | memoryview) -> bytes:
    """Return the bytes before the first zero byte, or all bytes if there is none.

    The head is short: a type, a length and 65 bytes for each child.
    """
    size = _HEAD_BYTES
    while b"\x00" not in (begin := bytes(content[:size])) and size < len(content):
        size *= 8
    return begin.partition(b"\x00")[0]


def make_object(kind: str, child: str, body: bytes) -> tuple[str, bytes]:
    """Return the id and the content of an object with one child, or none if that is empty."""
    content = b"%s %s %d\x00" % (kind.encode(), child.encode(), len(body)) + body
    return hashlib.sha256(content).hexdigest(), content


def error_reply(
    code: MessageError,
    run_id: int,
    instruction_id: str,
    instruction: common.Metadata | None = None,
    reason: str = "",
) -> tuple[Outgoing, bytes]:
    """Make the error reply that the SuperLink itself gives to an instruction.

    `instruction` is the instruction's metadata, if still known. `reason` replaces the usual text of
    the code. Returns the message and the content of its one object.
    """
    metadata = common.Metadata(
        run_id=run_id,
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=instruction_id,
        message_type="system",
        created_at=time.time(),
    )
    if instruction is not None:
        _reply_to(instruction, metadata)
    text = reason or _REASONS[code]
    if instruction is not None:
        text = f"SuperNode {instruction.dst_node_id}: {text}"
    message = common.Message(metadata=metadata, error=common.Error(code=int(code), reason=text))
    body = message.SerializeToString(deterministic=True)
    message.metadata.message_id, content = make_object("Message", "", body)
    tree = common.ObjectTree(object_id=message.metadata.message_id)
    return Outgoing(message.SerializeToString(), tree.SerializeToString()), content


def _reply_to(instruction: common.Metadata, reply: common.Metadata) -> None:
    reply.group_id = instruction.group_id
    reply.message_type = instruction.message_type
    reply.ttl = max(expires_at(instruction) - reply.created_at, 0.0)
    # Apps of flwr 1.38 and newer name their task. Replies of nodes mirror that, and so does this one.
    if instruction.HasField("src_task_id"):
        reply.dst_task_id = instruction.src_task_id
    if instruction.HasField("dst_task_id"):
        reply.src_task_id = instruction.dst_task_id


def malformed(reason: str) -> ApiError:
    """Return the refusal of a request that breaks the rules; `reason` is for the caller, too."""
    return ApiError(ErrorCode.MALFORMED_REQUEST, reason, public_details=reason)
