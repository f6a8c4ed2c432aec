"""The caller of a request, as the gateway has authenticated it."""

from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

# The one account of a runtime without accounts (flwr 1.33 `common/constant.py`, NOOP_*).
NO_ACCOUNT_ID = "<id:none>"
NO_ACCOUNT_NAME = "none"

# The node id that stands for the SuperLink itself (flwr 1.33 `common/constant.py`).
SUPERLINK_NODE_ID = 1


ASKED_FOR = 600.0
"""Seconds for which a gateway repeats a request that no superlink answers, at most."""


@dataclass(frozen=True)
class Caller:
    """The authenticated identity of one request; a field is None where it does not apply."""

    node_id: int | None = None
    """Fleet: the id that belongs to the key that signed the request; None before registration."""
    public_key: bytes | None = None
    """Fleet: the PEM public key whose signature was verified."""
    signed_at: float = 0.0
    """Fleet: when the caller signed the request, Unix seconds by its own clock."""
    task_id: int | None = None
    """Runtime: the task whose token came with the request."""
    run_id: int | None = None
    """Runtime: the run of that task."""
    task_type: str | None = None
    """Runtime: the type of that task, such as `flwr-serverapp`."""
    task_token: bytes = b""
    """Runtime: the SHA-256 hash of the task token that came with the call. Only the hash is
    evidence: superlinks look up the task themselves, and fill in the three fields above."""
    new_task_token: bytes = b""
    """Runtime: the hash of the token that the gateway made for the claimed task."""
    account_token: bytes = b""
    """Control: the SHA-256 hash of the token that came with the call, empty if none came. Only the
    hash is evidence: superlinks look up the account themselves, and fill in the fields below."""
    accounts_required: bool = False
    """Control: whether the gateway requires accounts."""
    account_id: str = NO_ACCOUNT_ID
    """Control: the Flower account id (`flwr_aid`)."""
    account_name: str = NO_ACCOUNT_NAME
    """Control: the account's name."""
    is_operator: bool = False
    """Control: whether it may do everything, as everybody may in a runtime without accounts."""
    account_session: str = ""
    """Control: the session of the token; empty without accounts."""
    client_version: str = ""
    """Version of flwr that the caller reports; empty if it reports none, which counts as the
    newest."""

    client_name: str = ""
    """The program that the caller reports, such as `SuperExec`; empty if it reports none."""

    superexec_host: str = ""
    """Runtime: the host whose `up` or superlink started the SuperExec; empty if neither did."""

    request_id: str = ""
    """Unique per client call and the same over our own retries: makes StartRun run once."""
    answer_by: float = 0.0
    """Until when the gateway waits for the answer, by the superlink's monotonic clock."""
    address: str = ""
    """The caller's address, if known. It is for people to read, and proves nothing."""
    gateway: str | None = None
    """Id of the caller's gateway."""
    supernode_auth: bool = False
    """Fleet: whether the gateway lets in only nodes with a key that an account has registered."""

    @property
    def sees(self) -> str | None:
        """Control: the account whose federations are shown; None for an operator, who sees all."""
        return None if self.is_operator else self.account_id

    def is_older_than(self, *release: int) -> bool:
        """Return whether the caller's flwr is older than a release, such as `1, 40`.

        Pre-releases count as their release, because they have its features.
        """
        try:
            return Version(self.client_version).release < release
        except InvalidVersion:
            return False
