"""Run statuses, asked for over the wire: `flwr list` keeps a core busy for a second or two each time."""

from __future__ import annotations

import grpc

from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME
from tests.e2e.servers import ServerUnderTest
from tests.harness.wire import VERSIONS


class Statuses:
    """A connection to the Control API of a server; a server that is away is waited for."""

    def __init__(self, server: ServerUnderTest) -> None:
        certificates = server.options.certificates
        if certificates is None:
            self._channel = grpc.insecure_channel(server.addresses.control)
        else:
            trusted = grpc.ssl_channel_credentials(certificates.ca_certificate.read_bytes())
            self._channel = grpc.secure_channel(server.addresses.control, trusted)
        rpc = BY_NAME[("Control", "ListRuns")]
        self._list_runs = self._channel.unary_unary(
            rpc.path,
            request_serializer=control.ListRunsRequest.SerializeToString,
            response_deserializer=control.ListRunsResponse.FromString,
        )

    def of(self, run_id: int, timeout: float) -> str:
        """Return a run's status as `flwr list` shows it, such as `finished:completed`.

        Raises grpc.RpcError, also if there is no answer within `timeout` seconds.
        """
        answer = self._list_runs(
            control.ListRunsRequest(run_id=run_id),
            metadata=tuple(VERSIONS["Control"]),
            timeout=timeout,
            wait_for_ready=True,
        )
        status = answer.run_dict[run_id].status
        return f"{status.status}:{status.sub_status}".removesuffix(":")

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
