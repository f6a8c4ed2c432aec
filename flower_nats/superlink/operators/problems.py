"""The problems of the runtime, in words, each with its remedy."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flower_nats.model.certificates import expired

Map = Mapping[str, Any]


def problems(report: Map) -> Iterator[str]:
    """Return the problems in the findings of `StatusReport`; empty for a healthy runtime."""
    if refusals := report["not_stored"]:
        reasons = ", ".join(f"{stream} {reason}" for stream, reason in refusals.items())
        yield f"the broker does not store ({reasons}). Remedy: check that its disks have room."
    if not report["database"]["healthy"]:
        reason = f" ({report['database']['reason']})" if report["database"]["reason"] else ""
        yield (
            f"the database does not answer{reason}: superlinks wait for it. Remedy: check that "
            "PostgreSQL runs; if not, its log says why."
        )
        return
    yield from expired(report["certificates"])
    yield from _no_superexec(report["superexecs"])


def _no_superexec(superexecs: Sequence[Map]) -> Iterator[str]:
    if any(not one["refused"] for one in superexecs):
        return
    if superexecs:
        last = superexecs[0]
        yield (
            f"the SuperExec at {last['address'] or 'an unknown address'} is refused "
            f"({last['refused']}): runs stay pending. Remedy: give it the secret of the gateways, "
            f"`flower-superexec --superexec-auth-secret-file`."
        )
    else:
        yield (
            "no SuperExec is connected: runs stay pending. Remedy: start `flower-superexec`; if "
            "one runs, its log says why it cannot connect."
        )
