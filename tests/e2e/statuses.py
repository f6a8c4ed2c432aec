"""Run statuses by calls over HTTP: each `flwr list` would keep a core busy for a second or two."""

from __future__ import annotations

import ssl

import httpx

from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME
from tests.e2e.servers import ServerUnderTest

_LIST_RUNS = BY_NAME[("Control", "ListRuns")]
_HEADERS = {"content-type": "application/protobuf", "accept": "application/protobuf"}


class Statuses:
    """A connection to the Control API of a server that may be away for some time."""

    def __init__(self, server: ServerUnderTest) -> None:
        certificates, address = server.options.certificates, server.addresses.http
        url, verify = f"http://{address}", ssl.create_default_context()
        if certificates is not None:
            url = f"https://{address}"
            verify.load_verify_locations(certificates.ca_certificate)
        self._client = httpx.Client(base_url=url, verify=verify, headers=_HEADERS, trust_env=False)

    def of(self, run_id: int) -> str:
        """Return a run's status as `flwr list` shows it, such as `finished:completed`.

        The status is empty while the server does not answer.
        """
        request = control.ListRunsRequest(run_id=run_id).SerializeToString()
        try:
            response = self._client.post(_LIST_RUNS.http_path, content=request)
        except httpx.TransportError:
            return ""
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return ""
        answer = control.ListRunsResponse.FromString(response.raise_for_status().content)
        status = answer.run_dict[run_id].status
        return f"{status.status}:{status.sub_status}".removesuffix(":")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
