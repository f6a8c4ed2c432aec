"""Every NATS subject and stream of the runtime, in one place.

Glossary (a `<run>`, `<node>`, `<task>` is a decimal number; a `<message>` or `<object>` is 64 hex digits,
the SHA-256 that Flower uses as its id; a `<session>` is 32 hex digits):

| subject | holds |
|---|---|
| `fn.run.<run>.node.<node>.ins.<session>.<message>` | an instruction waiting for its node |
| `fn.run.<run>.node.<node>.taken.<session>.<message>` | an instruction its node has confirmed and not yet answered |
| `fn.run.<run>.reply.<instruction>.<session>.<message>` | the one reply to an instruction, until the ServerApp confirms it |
| `fn.run.<run>.push.<session>.<part>` | a push session: messages whose objects are still arriving, and, until they are done, what keeps their objects alive |
| `fn.obj.<run>.<object>.<chunk>` | a chunk of an object |
| `fn.obj.<run>.<object>.head` | its size (and content, if small), written last: an object exists when its head does |
| `fn.log.<run>` | log lines of a run |
| `fn.blob.<id>.<chunk>` | a body too large for one NATS message, on its way between gateway and superlink |
| `fn.api.<service>.<method>` | a forwarded RPC (request/reply, queue group `superlink`) |
| `fn.wake.…`, `fn.event.…` | hints on core NATS: losing one may delay, never lose |
"""

from dataclasses import dataclass

MESSAGES_STREAM = "FN_MESSAGES"
OBJECTS_STREAM = "FN_OBJECTS"
LOGS_STREAM = "FN_LOGS"
BLOBS_STREAM = "FN_BLOBS"

MESSAGES_SUBJECTS = "fn.run.>"
OBJECTS_SUBJECTS = "fn.obj.>"
LOGS_SUBJECTS = "fn.log.*"
BLOBS_SUBJECTS = "fn.blob.>"

WAKES = "fn.wake.>"
EVENTS = "fn.event.>"
WORKERS = "superlink"
"""The queue group in which superlink replicas share the forwarded RPCs."""


def instruction(run_id: int, node_id: int, session: str, message_id: str) -> str:
    """Subject of an instruction that waits for its node."""
    return f"fn.run.{run_id}.node.{node_id}.ins.{session}.{message_id}"


def taken(run_id: int, node_id: int, session: str, message_id: str) -> str:
    """Subject of an instruction that its node has confirmed."""
    return f"fn.run.{run_id}.node.{node_id}.taken.{session}.{message_id}"


def reply(run_id: int, instruction_id: str, session: str, message_id: str) -> str:
    """Subject of the reply to an instruction."""
    return f"fn.run.{run_id}.reply.{instruction_id}.{session}.{message_id}"


def push(run_id: int, session: str, part: int) -> str:
    """Subject of one part of a push session's record."""
    return f"fn.run.{run_id}.push.{session}.{part}"


def object_chunk(run_id: int, object_id: str, chunk: int) -> str:
    """Subject of one chunk of an object."""
    return f"fn.obj.{run_id}.{object_id}.{chunk}"


def object_head(run_id: int, object_id: str) -> str:
    """Subject of an object's head."""
    return f"fn.obj.{run_id}.{object_id}.head"


def log(run_id: int) -> str:
    """Subject of a run's log lines."""
    return f"fn.log.{run_id}"


def api(service: str, method: str) -> str:
    """Subject on which superlinks serve an RPC."""
    return f"fn.api.{service}.{method}"


def wake_node(node_id: int) -> str:
    """Hint: an instruction for this node has been stored."""
    return f"fn.wake.node.{node_id}"


def wake_run(run_id: int) -> str:
    """Hint: a reply of this run has been stored, or its tasks changed."""
    return f"fn.wake.run.{run_id}"


def wake_object(run_id: int, object_id: str) -> str:
    """Hint: this object is whole now."""
    return f"fn.wake.object.{run_id}.{object_id}"


def wake_log(run_id: int) -> str:
    """Hint: a log line of this run has been stored, or the run has ended."""
    return f"fn.wake.log.{run_id}"


WAKE_TASKS = "fn.wake.tasks"
"""Hint: a task is pending."""


def event_run(run_id: int) -> str:
    """Hint: the status of this run has changed; drop what you have cached of it and its tasks."""
    return f"fn.event.run.{run_id}"


def event_node(node_id: int) -> str:
    """Hint: this node was registered or unregistered; drop what you have cached of it."""
    return f"fn.event.node.{node_id}"


@dataclass(frozen=True)
class InstructionKey:
    """What the subject of an instruction says."""

    run_id: int
    node_id: int
    taken: bool
    session: str
    message_id: str


@dataclass(frozen=True)
class ReplyKey:
    """What the subject of a reply says."""

    run_id: int
    instruction_id: str
    session: str
    message_id: str


def parse_instruction(subject: str) -> InstructionKey:
    """Read an instruction's subject back."""
    _, _, run, _, node, state, session, message = subject.split(".")
    return InstructionKey(int(run), int(node), state == "taken", session, message)


def parse_reply(subject: str) -> ReplyKey:
    """Read a reply's subject back."""
    _, _, run, _, instruction_id, session, message = subject.split(".")
    return ReplyKey(int(run), instruction_id, session, message)
