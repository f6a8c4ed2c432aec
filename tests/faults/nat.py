"""A site behind a masquerading router, in its own network namespaces: real Linux NAT.

    hospital ──── router ──── internet
    SuperNodes    NAT, lets   the federation's
                  nothing in  address

The namespaces know only each other. The runtime stays outside of them: the harness listens in
`internet` for the runtime (see `listener`).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pyroute2 import netns

INSIDE = "192.168.1.2"
"""The hospital's host."""

INTERNET = "203.0.113.1"
"""The federation's address (from a range reserved for documentation, RFC 5737)."""

_INSIDE_ROUTER = "192.168.1.1"
_OUTSIDE_ROUTER = "203.0.113."
_PREFIX = "fn-"
_COMMAND_SECONDS = 20.0
_ROOT = Path(__file__).parents[2]


class NoNamespaces(Exception):
    """This machine does not let us make network namespaces with NAT."""


class Site:
    """One hospital, its router, and the internet."""

    def __init__(self, name: str) -> None:
        self.hospital, self.router, self.internet = (name + end for end in ("-h", "-r", "-i"))
        self.address = _OUTSIDE_ROUTER + "10"
        """The router's address on the internet."""

    def build(self) -> None:
        """Connect the existing namespaces, and let the router masquerade."""
        for link, other in (("inside", self.hospital), ("outside", self.internet)):
            veth = ("type", "veth", "peer", "eth0", "netns", other)
            _ip("-n", self.router, "link", "add", link, *veth)
        for where, link, address in (
            (self.hospital, "eth0", INSIDE),
            (self.router, "inside", _INSIDE_ROUTER),
            (self.router, "outside", self.address),
            (self.internet, "eth0", INTERNET),
        ):
            _ip("-n", where, "addr", "add", f"{address}/24", "dev", link)
            _ip("-n", where, "link", "set", "lo", "up")
            _ip("-n", where, "link", "set", link, "up")
        _ip("-n", self.hospital, "route", "add", "default", "via", _INSIDE_ROUTER)
        # The internet has a route to the hospital, so that only the router keeps callers out.
        _ip("-n", self.internet, "route", "add", INSIDE, "via", self.address)
        self._set(self.router, "ipv4/ip_forward", 1)
        self._masquerade("inside", "outside")

    def change_address(self) -> None:
        """Give the router another address, like providers do; the kernel forgets the old flows."""
        old, self.address = self.address, _OUTSIDE_ROUTER + "20"
        _ip("-n", self.router, "addr", "del", f"{old}/24", "dev", "outside")
        _ip("-n", self.router, "addr", "add", f"{self.address}/24", "dev", "outside")
        _ip("-n", self.internet, "route", "replace", INSIDE, "via", self.address)

    def forget_flows(self) -> None:
        """Empty the router's table."""
        self._masquerade("flush")

    def forget_idle_flows(self, after: int) -> None:
        """Let the router forget a flow after so many idle seconds."""
        self._set(self.router, "netfilter/nf_conntrack_tcp_timeout_established", after)

    def drop_unknown_flows(self) -> None:
        """Let the router silently drop packets of flows that it did not see begin.

        By default Linux lets such packets out as a new flow. The other end does not know that flow,
        and answers with a reset.
        """
        self._set(self.router, "netfilter/nf_conntrack_tcp_loose", 0)

    def give_up_after(self, retransmissions: int) -> None:
        """Set how often the hospital's host resends a segment before it gives up the flow."""
        self._set(self.hospital, "ipv4/tcp_retries2", retransmissions)

    def _set(self, where: str, name: str, value: int) -> None:
        with inside(where):
            Path("/proc/sys/net", name).write_text(f"{value}\n")

    def _masquerade(self, *arguments: str) -> None:
        program = (sys.executable, "-m", "tests.faults.masquerade", *arguments)
        _run(*in_namespace(self.router, *program))


@contextmanager
def site() -> Iterator[Site]:
    """Make a site; its namespaces are always removed when the context ends.

    Raises NoNamespaces.
    """
    if os.geteuid() != 0:
        raise NoNamespaces("network namespaces need root")
    if missing := [name for name in ("ip", "nsenter") if shutil.which(name) is None]:
        raise NoNamespaces(f"not installed: {missing}")
    _sweep()
    one = Site(f"{_PREFIX}{os.getpid()}")
    with ExitStack() as stack:
        try:
            for name in (one.hospital, one.router, one.internet):
                _ip("netns", "add", name)
                stack.callback(_ip, "netns", "del", name)
            one.build()
        except (subprocess.CalledProcessError, OSError) as exc:
            raise NoNamespaces(f"no network namespaces with NAT here: {_reason(exc)}") from exc
        yield one


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Open sockets in a namespace. Await nothing in this context."""
    netns.pushns(namespace)
    try:
        yield
    finally:
        netns.popns()


def in_namespace(namespace: str, *command: str) -> list[str]:
    """Return a command that runs another command in a namespace, with the same process id.

    `ip netns exec` would also give the command a copy of all mounts. A disk of another test that
    runs at the same time would then stay mounted in this copy after its unmount.
    """
    return [
        shutil.which("nsenter") or "nsenter",
        f"--net={netns.NETNS_RUN_DIR}/{namespace}",
        *command,
    ]


def listener(namespace: str, host: str) -> socket.socket:
    """Listen in a namespace, on a free port."""
    with inside(namespace):
        return socket.create_server((host, 0))


def can_connect(namespace: str, host: str, port: int, within: float = 1.5) -> bool:
    """Return whether a connection from a namespace gets through; False without any answer."""
    with inside(namespace):
        probe = socket.socket()
    with probe:
        probe.settimeout(within)
        try:
            probe.connect((host, port))
        except TimeoutError:
            return False
        return True


def _reason(exc: subprocess.CalledProcessError | OSError) -> str:
    if isinstance(exc, OSError):
        return str(exc)
    last = exc.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return " ".join(last) or str(exc)


def _sweep() -> None:
    """Remove the namespaces of test sessions that were killed."""
    for name in netns.listnetns():
        owner = name.removeprefix(_PREFIX).rpartition("-")[0]
        if name.startswith(_PREFIX) and owner.isdigit() and not Path("/proc", owner).exists():
            _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_COMMAND_SECONDS, cwd=_ROOT)
