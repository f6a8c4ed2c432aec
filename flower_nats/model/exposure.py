"""Which parts of a gateway other machines reach, and the warnings for an operator."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flower_nats.model.addresses import is_of_loopback
from flower_nats.settings import GatewaySettings

Exposure = Mapping[str, Sequence[str]]
"""Addresses that other machines reach: `control` serves Control, `unencrypted` has no TLS, and
`open` takes unregistered SuperNodes."""

_NONE: Exposure = {"control": (), "unencrypted": (), "open": ()}


def exposure(gateway: GatewaySettings) -> Exposure:
    """Return the addresses of a gateway with these settings that other machines reach."""
    http = gateway.http_api_address
    fleet = _for_others([http, gateway.fleet_api_address])
    control = _for_others([http if gateway.control_to_others else "", gateway.control_api_address])
    runtime = _for_others([gateway.serverappio_api_address])
    return {
        "control": sorted({*control, *_for_others(gateway.control_by_balancer)}),
        "unencrypted": sorted(
            {
                *(() if gateway.tls else (*fleet, *control)),
                *(() if gateway.appio_tls else runtime),
            }
        ),
        "open": [] if gateway.enable_supernode_auth else fleet,
    }


def together(exposures: Iterable[Exposure]) -> Exposure:
    """Return the exposure of several gateways."""
    several = list(exposures)
    return {
        kind: sorted({address for one in several for address in one.get(kind, ())})
        for kind in _NONE
    }


def warnings(
    exposed: Exposure, *, accounts: bool = False, only_registered: bool = False
) -> Iterator[str]:
    """Return the warnings, each with its remedy.

    `accounts`: Control requires accounts. `only_registered`: only registered SuperNodes are let in.
    """
    if exposed.get("control") and not accounts:
        yield open_control(exposed)
    if exposed.get("unencrypted"):
        yield (
            f"Traffic is not encrypted ({', '.join(exposed['unencrypted'])}): anybody on the "
            "network path can read and change models. Remedy: --ssl-certfile, --ssl-keyfile and "
            "--ssl-ca-certfile."
        )
    if exposed.get("open") and not only_registered:
        yield (
            f"Anybody may add a SuperNode ({', '.join(exposed['open'])}) that takes part in "
            "runs. Remedy: --enable-supernode-auth, and `flwr supernode register` for each "
            "SuperNode."
        )


def open_control(exposed: Exposure) -> str:
    """Return the warning that other machines reach Control without accounts."""
    return (
        f"Anyone who reaches Control ({', '.join(exposed['control'])}) can run any Python on the "
        "server and on every SuperNode. Remedy: use --accounts, or keep others away from "
        "Control (docs/security.md)."
    )


def _for_others(addresses: Iterable[str]) -> list[str]:
    return sorted({one for one in addresses if one and not is_of_loopback(one)})
