"""Every NATS subject and stream of the runtime, in one place.

Glossary (a `<run>` or `<node>` is a decimal number; a `<message>` or `<object>` is 64 hex digits,
the SHA-256 that Flower uses as its id; a `<session>` is 32 hex digits). An instruction and its
reply have the instruction's id at the same place, so that one filter, `exchange`, covers both. A
writer of either states which of the two was the newest when it looked, and the broker refuses the
write if that has changed.

| subject | holds |
|---|---|
| `fn.run.<run>.node.<node>.<session>.<message>.instruction` | an instruction, from when its objects are whole until its reply is accepted; header `Fn-Taken` once its node has confirmed it |
| `fn.run.<run>.session.<session>.push.<part>` | a push session: messages whose objects are arriving, kept until the messages are done, because it keeps their objects from being collected |
| `fn.run.<run>.session.<session>.released` | every instruction of this session has been handed to its node's mailbox |
| `fn.run.<run>.session.<session>.reply.<instruction>.<message>` | the one reply to an instruction, until the ServerApp confirms it |
| `fn.obj.<run>.<object>.<chunk>` | a chunk of an object |
| `fn.obj.<run>.<object>.head` | its size (and content, if small), written last: an object exists when its head does |
| `fn.log.<run>` | log lines of a run |
| `fn.blob.<id>.<chunk>` | a body too large for one NATS message, on its way between gateway and superlink |
| `fn.trial.<stream>` | nothing: the newest proof that a stream stores |
| `fn.api.<service>.<method>` | a forwarded RPC (request/reply, queue group `superlink`) |
| `fn.one.<superlink>.<service>.<method>` | the same at one superlink, where another one seems to be stopped |
| `fn.gateway.<gateway>` | nothing: the gateway subscribes as long as it is connected |
| `fn.wake.…`, `fn.event.…` | hints on core NATS: a lost hint may cause a delay, never a loss |
"""

from dataclasses import dataclass

MESSAGES_STREAM = "FN_MESSAGES"
OBJECTS_STREAM = "FN_OBJECTS"
LOGS_STREAM = "FN_LOGS"
BLOBS_STREAM = "FN_BLOBS"
STREAMS = (MESSAGES_STREAM, OBJECTS_STREAM, LOGS_STREAM, BLOBS_STREAM)

MESSAGES_SUBJECTS = "fn.run.>"
OBJECTS_SUBJECTS = "fn.obj.>"
LOGS_SUBJECTS = "fn.log.*"
BLOBS_SUBJECTS = "fn.blob.>"

_STORED_IN = {
    MESSAGES_STREAM: MESSAGES_SUBJECTS.rstrip("*>"),
    OBJECTS_STREAM: OBJECTS_SUBJECTS.rstrip("*>"),
    LOGS_STREAM: LOGS_SUBJECTS.rstrip("*>"),
    BLOBS_STREAM: BLOBS_SUBJECTS.rstrip("*>"),
}
"""What the subjects of each stream begin with."""

HINTS = ("fn.wake.>", "fn.event.>")
WORKERS = "superlink"
"""The queue group in which superlink replicas share the forwarded RPCs."""

INTERNAL = "Internal"
"""The service for questions of gateways, beside the calls that they forward."""

OPERATOR = "Operator"
"""The service for commands of operators."""

CONSOLE = "Console"
"""The service for questions of the console."""

ANY = "*"


def is_of(stream: str, subject: str) -> bool:
    """Whether a message on `subject` is for a stream, or asks the broker about the stream."""
    if subject.startswith("$JS.API."):
        return subject.endswith(f".{stream}")
    if subject == trial(stream):
        return True
    return stream in _STORED_IN and subject.startswith(_STORED_IN[stream])


def trial(stream: str) -> str:
    """Subject of the small messages that prove that a stream stores."""
    return f"fn.trial.{stream}"


def run(run_id: int) -> str:
    """All messages in flight of one run."""
    return f"fn.run.{run_id}.>"


def instruction(run_id: int | str, node_id: int | str, session: str, message_id: str) -> str:
    """Subject of an instruction; any part may be `ANY`."""
    return f"fn.run.{run_id}.node.{node_id}.{session}.{message_id}.instruction"


def exchange(run_id: int, instruction_id: str) -> str:
    """An instruction and its reply, for every node and in every state."""
    return f"fn.run.{run_id}.*.*.*.{instruction_id}.*"


def session(run_id: int, session_id: str) -> str:
    """The record and the reply of one push session; not its instructions."""
    return f"fn.run.{run_id}.session.{session_id}.>"


def push(run_id: int, session_id: str, part: int | str) -> str:
    """Subject of one part of a push session's record."""
    return f"fn.run.{run_id}.session.{session_id}.push.{part}"


def released(run_id: int, session_id: str) -> str:
    """Subject of the mark that all instructions of a session are released."""
    return f"fn.run.{run_id}.session.{session_id}.released"


def reply(run_id: int, session_id: str, instruction_id: str, message_id: str) -> str:
    """Subject of the reply to an instruction; any part but the run may be `ANY`."""
    return f"fn.run.{run_id}.session.{session_id}.reply.{instruction_id}.{message_id}"


def objects(run_id: int) -> str:
    """Every object of one run."""
    return f"fn.obj.{run_id}.>"


def whole_object(run_id: int, object_id: str) -> str:
    """All of one object."""
    return f"fn.obj.{run_id}.{object_id}.*"


def object_chunk(run_id: int, object_id: str, chunk: int) -> str:
    """Subject of one chunk of an object."""
    return f"fn.obj.{run_id}.{object_id}.{chunk}"


def object_head(run_id: int | str, object_id: str) -> str:
    """Subject of an object's head."""
    return f"fn.obj.{run_id}.{object_id}.head"


def log(run_id: int) -> str:
    """Subject of a run's log lines."""
    return f"fn.log.{run_id}"


def blob(blob_id: str, chunk: int | str) -> str:
    """Subject of one chunk of a body in transit."""
    return f"fn.blob.{blob_id}.{chunk}"


API = "fn.api."
"""The prefix of every `api`."""


def api(service: str, method: str) -> str:
    """Subject on which superlinks serve an RPC."""
    return f"{API}{service}.{method}"


ONE = "fn.one."
"""The prefix of every `one`."""


def one(superlink: str, service: str, method: str) -> str:
    """Subject on which this superlink alone serves an RPC."""
    return f"{ONE}{superlink}.{service}.{method}"


def all_of_one(superlink: str) -> str:
    """Subjects of all `one` of a superlink."""
    return f"{ONE}{superlink}.>"


def rpc(subject: str) -> str:
    """Return `<service>.<method>` of an `api` or `one` subject."""
    return subject.split(".", 2 if subject.startswith(API) else 3)[-1]


WAKE_NODE = "fn.wake.node."
"""The prefix of every `wake_node`."""


def wake_node(node_id: int) -> str:
    """Hint: an instruction for this node has been stored."""
    return f"{WAKE_NODE}{node_id}"


WAKE_RUN = "fn.wake.run."
"""The prefix of every `wake_run`."""


def wake_run(run_id: int) -> str:
    """Hint: a reply of this run has been stored; the payload is its subject."""
    return f"{WAKE_RUN}{run_id}"


WAKE_OBJECT = "fn.wake.object."
"""The prefix of every `wake_object`."""


def wake_object(run_id: int, object_id: str) -> str:
    """Hint: this object is complete.

    The payload is the push session of the object, and the numbers of the messages in it that the
    gateway will now release.
    """
    return f"{WAKE_OBJECT}{run_id}.{object_id}"


WAKE_SESSION = "fn.wake.session."
"""The prefix of every `wake_session`."""


def wake_session(run_id: int) -> str:
    """Hint: messages of a push session are released; the payload is the session and the numbers."""
    return f"{WAKE_SESSION}{run_id}"


WAKE_LOG = "fn.wake.log."
"""The prefix of every `wake_log`."""


def wake_log(run_id: int) -> str:
    """Hint: a log line of this run has been stored."""
    return f"{WAKE_LOG}{run_id}"


WAKE_TASKS = "fn.wake.tasks"
"""Hint: a task is pending."""


EVENT_RUN = "fn.event.run."
"""The prefix of every `event_run`."""


def event_run(run_id: int) -> str:
    """Hint: the status of this run has changed; caches of it and its tasks are stale."""
    return f"{EVENT_RUN}{run_id}"


EVENT_NODE = "fn.event.node."
"""The prefix of every `event_node`."""


def event_node(node_id: int) -> str:
    """Hint: this node was registered or unregistered; caches of it are stale."""
    return f"{EVENT_NODE}{node_id}"


EVENT_ACCOUNTS = "fn.event.accounts"
"""Hint: tokens of an account were revoked."""


EVENT_SUPERLINK = "fn.event.superlink."
"""The prefix of every `event_superlink`."""


def event_superlink(superlink: str) -> str:
    """Hint: this superlink is awake, or leaves if the payload says so."""
    return f"{EVENT_SUPERLINK}{superlink}"


EVENT_SIGNATURES = "fn.event.signatures"
"""Hint: signatures of SuperNodes were used at a gateway; the payload lists them and their use."""


EVENT_LINES = "fn.event.lines."
"""The prefix of every `event_lines`."""


def event_lines(run_id: int) -> str:
    """Hint: log lines of this run could not be stored at once; the payload says their state."""
    return f"{EVENT_LINES}{run_id}"


def gateway(gateway_id: str) -> str:
    """A gateway subscribes to this as long as it is connected. Nothing is published there."""
    return f"fn.gateway.{gateway_id}"


EVENT_GATEWAY = "fn.event.gateway."
"""The prefix of every `event_gateway`."""


def event_gateway(gateway_id: str) -> str:
    """Hint: this gateway is alive, or leaves if the payload says so."""
    return f"{EVENT_GATEWAY}{gateway_id}"


EVENT_PUSHES = "fn.event.pushes."
"""The prefix of every `event_pushes`."""


def event_pushes(gateway_id: str) -> str:
    """Hint: objects are being pushed to this gateway; the payload names the pushers."""
    return f"{EVENT_PUSHES}{gateway_id}"


@dataclass(frozen=True)
class InstructionKey:
    """The parts of an instruction's subject."""

    run_id: int
    node_id: int
    session_id: str
    message_id: str

    @property
    def subject(self) -> str:
        """The subject it was read from."""
        return instruction(self.run_id, self.node_id, self.session_id, self.message_id)


@dataclass(frozen=True)
class ReplyKey:
    """The parts of a reply's subject."""

    run_id: int
    session_id: str
    instruction_id: str
    message_id: str

    @property
    def subject(self) -> str:
        """The subject it was read from."""
        return reply(self.run_id, self.session_id, self.instruction_id, self.message_id)


@dataclass(frozen=True)
class SessionKey:
    """The parts of the subject of a push session's part, or of its `released` mark."""

    run_id: int
    session_id: str
    released: bool


def parse(subject: str) -> InstructionKey | ReplyKey | SessionKey:
    """Parse a subject of the messages stream."""
    parts = subject.split(".")
    run_id = int(parts[2])
    if parts[3] == "node":
        return InstructionKey(run_id, int(parts[4]), parts[5], parts[6])
    if parts[5] == "reply":
        return ReplyKey(run_id, parts[4], parts[6], parts[7])
    return SessionKey(run_id, parts[4], parts[5] == "released")
