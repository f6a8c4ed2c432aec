"""The overview: "can I sleep?", in words."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flower_nats.model.certificates import days_left, expired, expiring, together
from flower_nats_console.words import bytes_in_words, hours_in_words, plural

Map = Mapping[str, Any]

_SOON = 72.0
"""Hours: a disk that will be full within a weekend is shown."""

GOOD, NOTE, BAD = "good", "note", "bad"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    state: str
    """`good`, `note` (it works; one more failure would hurt) or `bad`."""
    subject: str
    text: str
    remedy: str = ""
    alone: str = ""
    """What nobody stands in for: if that fails, people notice."""


@dataclass(frozen=True)
class Overview:
    """All that was looked at, the worst first."""

    findings: Sequence[Finding]

    @property
    def state(self) -> str:
        """The worst state."""
        states = {one.state for one in self.findings}
        return next(state for state in (BAD, NOTE, GOOD) if state in states or state == GOOD)

    @property
    def answer(self) -> str:
        """Whether one can sleep."""
        bad = [one for one in self.findings if one.state == BAD]
        if bad:
            return f"No: {plural(len(bad), 'thing')} {'needs' if len(bad) == 1 else 'need'} you."
        notes = [one for one in self.findings if one.state == NOTE and not one.alone]
        look = f" {plural(len(notes), 'thing')} to mind." if notes else ""
        if alone := [one.alone for one in self.findings if one.alone]:
            return f"Yes, as long as nothing happens to {_listed(alone)}.{look}"
        return f"Yes. Any one of its processes may die.{look}"


def overview(status: Map, own_certificate: Sequence[Map] = ()) -> Overview:
    """Return what the status of the runtime (see `StatusReport.report`) means.

    `own_certificate` is the console's, if it has one.
    """
    found = [Finding(BAD, "Runtime", *_split(one)) for one in status["problems"]]
    found += [Finding(BAD, "Console", *_split(one)) for one in expired(own_certificate)]
    notes = [*status.get("warnings", ()), *expiring(own_certificate)]
    found += [Finding(NOTE, "Security", *_split(one)) for one in notes]
    found += _certificates([*status.get("certificates", ()), *own_certificate])
    found += [*_broker(status), *_room(status)]
    # The rest is in the database.
    if status["database"]["healthy"]:
        found += [*_replicas(status), *_database(status), *_nodes(status)]
    order = [BAD, NOTE, GOOD]
    return Overview(sorted(found, key=lambda one: order.index(one.state)))


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _split(problem: str) -> tuple[str, str]:
    """Return what is wrong, as a sentence, and the remedy."""
    text, _, remedy = problem.partition(" Remedy: ")
    return text[:1].upper() + text[1:], remedy[:1].upper() + remedy[1:]


def _certificates(certificates: Sequence[Map]) -> Iterator[Finding]:
    good = [one for one in together(certificates) if days_left(one) >= 0]
    if good:
        ends = ", ".join(f"of {one['of']} until {one['expires_at'][:10]}" for one in good)
        yield Finding(GOOD, "Certificates", f"{ends[:1].upper()}{ends[1:]}.")


def _replicas(status: Map) -> Iterator[Finding]:
    kinds = Counter(one["kind"] for one in status["replicas"])
    for kind, what in (
        ("gateway", "clients wait until it is started again"),
        ("superlink", "no run starts or ends until it is started again"),
    ):
        number, subject = kinds[kind], f"{kind.capitalize()}s"
        if number == 0:
            yield Finding(BAD, subject, f"No {kind} is up.", f"Start one: `flower-nats {kind}`.")
        elif number == 1:
            yield Finding(
                NOTE,
                subject,
                f"One {kind} is up. If it dies, {what}; nothing is lost.",
                f"Start another {kind}, or use `flower-nats up --replicas 3`.",
                alone=f"the {kind}",
            )
        else:
            yield Finding(GOOD, subject, f"{number} {kind}s are up. Any of them may die.")


def _broker(status: Map) -> Iterator[Finding]:
    if lost := status["streams_lost"]:
        yield Finding(
            BAD,
            "NATS",
            f"{plural(lost, 'stream')} of NATS were lost and made again: messages or logs are "
            "lost.",
            "See what happened to its data directory.",
        )
    if status["durability"] is None:
        if status["database"]["healthy"]:
            yield Finding(
                BAD, "NATS", "Unknown: NATS does not tell whether it syncs to disk.", "See its log."
            )
        return
    broker = status["durability"]["broker"]
    copies, silent = (
        broker["replicas"],
        [name for name, sync in broker["servers"].items() if sync == "unknown"],
    )
    leader = f" The leader is {broker['leader']}." if broker.get("leader") else ""
    if silent:
        yield Finding(
            BAD,
            "NATS",
            f"{plural(len(silent), 'NATS server')} not heard: {', '.join(silent)}.{leader}",
            "Start it again. Of three servers two are needed.",
        )
    elif copies == 1:
        yield Finding(
            NOTE,
            "NATS",
            "One NATS server holds all messages. While it is down, everything waits.",
            "Use a cluster of three: `flower-nats up --replicas 3`.",
            alone="NATS",
        )
    else:
        yield Finding(GOOD, "NATS", f"{copies} servers hold each message. Any one may die.{leader}")
    if broker["sync"] == "always":
        yield Finding(
            GOOD, "NATS on disk", "Acknowledged messages are on disk and survive a power cut."
        )
    elif broker["sync"] != "unknown":
        yield Finding(
            BAD,
            "NATS on disk",
            f"NATS syncs only every {broker['sync']}: a power cut loses messages acknowledged "
            "since.",
            "Set `sync_interval: always` in the jetstream block of every nats-server.",
        )


def _database(status: Map) -> Iterator[Finding]:
    if status["durability"] is None:
        return
    database = status["durability"]["database"]
    if not database["synced"]:
        yield Finding(
            BAD,
            "PostgreSQL on disk",
            f"PostgreSQL acknowledges before it is on disk (fsync {database['fsync']}, "
            f"synchronous_commit {database['synchronous_commit']}): a power cut loses runs.",
            "Set `fsync` and `synchronous_commit` to on.",
        )
    else:
        yield Finding(GOOD, "PostgreSQL on disk", "Committed data is on disk.")
    standbys, synchronous = database["standbys"], database["synchronous_standbys"]
    if standbys == 0:
        yield Finding(
            NOTE,
            "PostgreSQL",
            "One PostgreSQL, without a standby. While it is down, no run starts or ends.",
            "Add a standby, or make sure that PostgreSQL is restarted soon.",
            alone="PostgreSQL",
        )
    elif not synchronous:
        yield Finding(
            NOTE,
            "PostgreSQL",
            f"{plural(standbys, 'standby', 'standbys')}, none known to be synchronous: if the primary's "
            "disk dies, the last commits may be lost.",
            "Name the standbys in `synchronous_standby_names`.",
            alone="the disk of PostgreSQL's primary",
        )
    else:
        text = f"{plural(standbys, 'standby', 'standbys')}, {synchronous} of them synchronous."
        yield Finding(GOOD, "PostgreSQL", text)


def _room(status: Map) -> Iterator[Finding]:
    for place, room in status["room"].items():
        left = f"{bytes_in_words(room['free'])} of {bytes_in_words(room['size'])} free"
        hours = room["hours_left"]
        subject = f"Room: {place}"
        pace = ""
        if hours is not None:
            pace = f" At the pace of the last hour full in {hours_in_words(hours)}."
        if room["is_low"]:
            yield Finding(BAD, subject, f"Low: {left}. When it is full, runs wait.", "Make room.")
        elif hours is not None and hours < _SOON:
            remedy = "Make room, or keep logs for a shorter time (`--log-retention`)."
            yield Finding(NOTE, subject, f"{left}.{pace}", remedy)
        else:
            yield Finding(GOOD, subject, f"{left}.{pace}")


def _nodes(status: Map) -> Iterator[Finding]:
    nodes = status["nodes"]
    online, offline = nodes.get("online", 0), nodes.get("offline", 0)
    if offline:
        yield Finding(
            NOTE,
            "SuperNodes",
            f"{online} online, {offline} offline.",
            "The page Nodes shows since when.",
        )
    elif online:
        yield Finding(GOOD, "SuperNodes", f"All {online} are online.")
