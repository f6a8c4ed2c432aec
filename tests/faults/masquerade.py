"""Makes its network namespace a router like those of homes and hospitals.

    python -m tests.faults.masquerade <inside> <outside>    masquerade, and let nothing in
    python -m tests.faults.masquerade flush                 forget every flow

This is a program, because netlink sockets belong to the namespace in which they were opened.
"""

from __future__ import annotations

import struct
import sys
from typing import Any

from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket
from pyroute2.nftables.expressions import genex, masq, verdict
from pyroute2.nftables.main import NFTables

_IPV4 = 2
_TABLE = "site"
_DROP, _ACCEPT = 0, 1
_SOURCE_NAT_PRIORITY = 100
_ESTABLISHED_OR_RELATED, _NEW = 2 | 4, 8
"""Bits of a packet's state in the kernel's connection tracking (`NF_CT_STATE_BIT`)."""

_CT_STATE = 0
_META_INCOMING, _META_OUTGOING = 6, 7
_EQUAL, _UNEQUAL = 0, 1
_NAME_BYTES = 16

Expressions = list[Any]


def _compare(operator: int, value: bytes) -> Any:
    return genex("cmp", {"sreg": 1, "op": operator, "data": _data(value)})


def _data(value: bytes) -> Any:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _interface(key: int, name: str) -> Expressions:
    load = genex("meta", {"key": key, "dreg": 1})
    return [load, _compare(_EQUAL, name.encode().ljust(_NAME_BYTES, b"\0"))]


def _state(bits: int) -> Expressions:
    none = bytes(4)
    mask = {"mask": _data(struct.pack("=I", bits)), "xor": _data(none)}
    return [
        genex("ct", {"key": _CT_STATE, "dreg": 1}),
        genex("bitwise", {"sreg": 1, "dreg": 1, "len": 4, **mask}),
        _compare(_UNEQUAL, none),
    ]


def masquerade(inside: str, outside: str) -> None:
    """Let flows out under the router's own address and their answers in, and nothing else."""
    nft = NFTables(nfgen_family=_IPV4)
    nft.table("add", name=_TABLE)
    nft.chain("add", table=_TABLE, name="to-router", hook="input", type="filter", policy=_DROP)
    nft.chain("add", table=_TABLE, name="through", hook="forward", type="filter", policy=_DROP)
    nft.chain(
        "add",
        table=_TABLE,
        name="source",
        hook="postrouting",
        type="nat",
        priority=_SOURCE_NAT_PRIORITY,
        policy=_ACCEPT,
    )
    known, from_inside = _state(_ESTABLISHED_OR_RELATED), _interface(_META_INCOMING, inside)
    for chain, expressions in (
        ("to-router", (known, verdict(_ACCEPT))),
        ("through", (known, verdict(_ACCEPT))),
        ("through", (_state(_NEW), from_inside, verdict(_ACCEPT))),
        ("source", (_interface(_META_OUTGOING, outside), masq())),
    ):
        nft.rule("add", table=_TABLE, chain=chain, expressions=expressions)
    nft.close()


def flush() -> None:
    """Forget every flow, like a router that was switched off and on again."""
    NFCTSocket().flush()


if __name__ == "__main__":
    if sys.argv[1:] == ["flush"]:
        flush()
    else:
        masquerade(*sys.argv[1:])
