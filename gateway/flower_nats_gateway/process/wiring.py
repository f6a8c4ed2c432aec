"""The parts of a gateway, and the hints for each of them."""

from dataclasses import dataclass, replace

from flower_nats.broker.connection import Connection
from flower_nats.broker.error_replies import ErrorReplies
from flower_nats.broker.exchange_notes import ExchangeNotes
from flower_nats.broker.hints import Wakes
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.broker.pushers import Pushes
from flower_nats.broker.rpc import RpcClient
from flower_nats.broker.runlog import RunLogs
from flower_nats.settings import GatewaySettings
from flower_nats.wire.methods import ARTIFACTS_PATH, CONTROL, FLEET, RUNTIME
from flower_nats_gateway.api.artifacts_page import ArtifactsPage
from flower_nats_gateway.api.control import ControlStreams
from flower_nats_gateway.api.fleet import FleetService
from flower_nats_gateway.api.forwarding import Forwarder, with_renewal
from flower_nats_gateway.api.login_page import PATH as LOGIN_PATH
from flower_nats_gateway.api.login_page import LoginPage
from flower_nats_gateway.api.runtime import RuntimeService
from flower_nats_gateway.api.service import Service
from flower_nats_gateway.auth.accounts import Renewal, authenticate_account
from flower_nats_gateway.auth.doors import refuse_everybody, unless_passed_on
from flower_nats_gateway.auth.follower import Followers
from flower_nats_gateway.auth.identify import Authenticator
from flower_nats_gateway.auth.nodes import FleetAuthenticator
from flower_nats_gateway.auth.signatures import Verifier
from flower_nats_gateway.auth.tasks import RuntimeAuthenticator
from flower_nats_gateway.auth.used_signatures import UsedSignatures
from flower_nats_gateway.calls.admission import Admission
from flower_nats_gateway.calls.balancers import Balancers
from flower_nats_gateway.calls.bodies import Bodies
from flower_nats_gateway.calls.call import Drain
from flower_nats_gateway.calls.in_hand import CallsInHand
from flower_nats_gateway.calls.outcomes import Outcomes
from flower_nats_gateway.cluster.clis_heard import ClisHeard
from flower_nats_gateway.cluster.directory import Directory
from flower_nats_gateway.cluster.liveness import GatewayLiveness
from flower_nats_gateway.cluster.presence import Presence
from flower_nats_gateway.cluster.superexecs_heard import SuperexecsHeard
from flower_nats_gateway.cluster.usage import Usage
from flower_nats_gateway.delivery.lost_replies import LostReplies
from flower_nats_gateway.delivery.named_objects import NamedObjects
from flower_nats_gateway.delivery.objects import ObjectService
from flower_nats_gateway.delivery.push_sessions import PushSessions
from flower_nats_gateway.delivery.reply_metrics import ReplyMetrics
from flower_nats_gateway.delivery.stored_bytes import StoredBytes
from flower_nats_gateway.runlog.follow import LogFollower
from flower_nats_gateway.runlog.intake import Answered, LogIntake
from flower_nats_gateway.runlog.pending import PendingLines


@dataclass(frozen=True)
class Parts:
    """The parts of one gateway that its start and end need."""

    fleet: Service
    runtime: Service
    control: Service
    wakes: Wakes
    verifier: Verifier
    rpc: RpcClient
    notes: ExchangeNotes
    usage: Usage
    presence: Presence
    superexecs: SuperexecsHeard
    clis: ClisHeard
    liveness: GatewayLiveness
    forward: Forwarder
    runtime_api: RuntimeService
    in_hand: CallsInHand
    admission: Admission
    bodies: Bodies
    balancers: Balancers
    pushes: Pushes
    outcomes: Outcomes
    drain: Drain

    def services_here(self, settings: GatewaySettings) -> tuple[Service, ...]:
        """Return the three APIs as the HTTP port serves them to this machine."""
        return self.fleet, *(
            service if for_others else _with(unless_passed_on(service.authenticate), service)
            for service, for_others in self._guarded(settings)
        )

    def services_for_others(self, settings: GatewaySettings) -> tuple[Service, ...]:
        """Return the three APIs as the HTTP port serves them to other machines."""
        return self.fleet, *(
            service if for_others else _with(refuse_everybody, service)
            for service, for_others in self._guarded(settings)
        )

    def _guarded(self, settings: GatewaySettings) -> tuple[tuple[Service, bool], ...]:
        return (
            (self.runtime, settings.runtime_to_others),
            (self.control, settings.control_to_others),
        )


def _with(authenticate: Authenticator, service: Service) -> Service:
    return replace(service, authenticate=authenticate)


def wire(settings: GatewaySettings, connection: Connection, gateway_id: str) -> Parts:
    """Create all parts of a gateway."""
    drain, in_hand, outcomes, bodies = Drain(), CallsInHand(), Outcomes(), Bodies()
    balancers = Balancers(settings.trusted_balancers)
    bodies.shared = settings.max_calls_per_address > 0
    wakes, rpc, pushes = Wakes(connection), RpcClient(connection), Pushes()
    notes = ExchangeNotes()
    mailbox, objects, logs = Mailbox(connection, notes), Objects(connection), RunLogs(connection)
    admission = Admission(in_hand, lambda: wakes.waiting, per_host=settings.max_calls_per_address)
    presence, superexecs, clis = Presence(), SuperexecsHeard(), ClisHeard()
    usage = Usage(rpc, gateway_id, notes, presence)
    liveness = GatewayLiveness(connection, gateway_id)
    verifier, answered = Verifier(), Answered()
    used_signatures = UsedSignatures(connection)
    supernode_auth = settings.enable_supernode_auth
    directory = Directory(rpc, supernode_auth=supernode_auth)
    stored_bytes = StoredBytes(mailbox, settings.storage_limits)
    push_sessions = PushSessions(mailbox, objects, stored_bytes)
    metrics = ReplyMetrics(notes, recorded=settings.record_metrics)
    object_service = ObjectService(
        objects, push_sessions, stored_bytes, wakes, drain, notes, metrics
    )
    error_replies = ErrorReplies(mailbox, objects)
    pending_lines = PendingLines(connection, wakes, liveness, drain)
    forward = Forwarder(rpc, pending_lines, gateway_id)

    wakes.on_superlink(rpc.note_superlink)
    wakes.on_gateway(liveness.note)
    wakes.on_node_wake(mailbox.forget_node)
    wakes.on_node_event(directory.forget_node)
    wakes.on_run_event(directory.forget_run)
    wakes.on_run_event(object_service.forget_run)
    wakes.on_run_event(stored_bytes.forget_run)
    wakes.on_object(push_sessions.note_object)
    wakes.on_session(push_sessions.note_out)
    wakes.on_log(answered.note_stored)
    wakes.on_signatures(used_signatures.note)
    wakes.on_lines(pending_lines.note)
    wakes.on_loss(directory.doubt_all)
    wakes.on_loss(liveness.note_loss)

    fleet_api = FleetService(
        mailbox=mailbox,
        push_sessions=push_sessions,
        objects=object_service,
        named_objects=NamedObjects(mailbox),
        directory=directory,
        wakes=wakes,
        usage=usage,
        notes=notes,
        presence=presence,
        forward=forward,
        lost_replies=LostReplies(mailbox, error_replies),
        drain=drain,
    )
    runtime_api = RuntimeService(
        mailbox=mailbox,
        push_sessions=push_sessions,
        objects=object_service,
        error_replies=error_replies,
        log_intake=LogIntake(logs, pending_lines, answered, gateway_id),
        directory=directory,
        wakes=wakes,
        rpc=rpc,
        forward=forward,
        drain=drain,
    )
    log = LogFollower(
        logs=logs, pending_lines=pending_lines, directory=directory, wakes=wakes, drain=drain
    )
    renewal, login_page = Renewal(rpc), LoginPage(rpc, settings.login_url)
    artifacts_page = ArtifactsPage(rpc, settings)
    forward_control = with_renewal(forward, renewal)
    followers = Followers(rpc, renewal)
    wakes.on_accounts(followers.note_change)
    wakes.on_loss(followers.note_change)
    streams = ControlStreams(log=log, followers=followers, wakes=wakes, rpc=rpc, drain=drain)
    return Parts(
        fleet=Service(
            methods=FLEET,
            authenticate=FleetAuthenticator(
                directory, verifier, used_signatures, supernode_auth=supernode_auth
            ),
            endpoints=fleet_api.endpoints(),
            forward=forward,
            streams={},
            pages={},
            in_hand=in_hand,
            admission=admission,
            outcomes=outcomes,
            bodies=bodies,
            pushes=pushes,
            balancers=balancers,
        ),
        runtime=Service(
            methods=RUNTIME,
            authenticate=RuntimeAuthenticator(
                directory, pending_lines, rpc, settings.superexec_auth_secret_file, superexecs
            ),
            endpoints=runtime_api.endpoints(),
            forward=forward,
            streams={},
            pages={},
            in_hand=in_hand,
            admission=admission,
            outcomes=outcomes,
            bodies=bodies,
            pushes=pushes,
            balancers=balancers,
        ),
        control=Service(
            methods=CONTROL,
            authenticate=authenticate_account(clis, required=settings.require_accounts),
            endpoints={
                "GetLoginDetails": login_page.with_address(forward),
                "PullArtifacts": artifacts_page.with_address(forward_control),
            },
            forward=forward_control,
            streams=streams.endpoints(),
            pages={LOGIN_PATH: login_page, ARTIFACTS_PATH: artifacts_page},
            in_hand=in_hand,
            admission=admission,
            outcomes=outcomes,
            bodies=bodies,
            pushes=pushes,
            balancers=balancers,
        ),
        wakes=wakes,
        verifier=verifier,
        rpc=rpc,
        notes=notes,
        usage=usage,
        presence=presence,
        superexecs=superexecs,
        clis=clis,
        liveness=liveness,
        forward=forward,
        runtime_api=runtime_api,
        in_hand=in_hand,
        admission=admission,
        bodies=bodies,
        balancers=balancers,
        pushes=pushes,
        outcomes=outcomes,
        drain=drain,
    )
