-- Metadata of the runtime: nodes, FABs, run series, runs, tasks, accounts, and what housekeeping needs.
-- Every bigint is an unsigned 64-bit number (see store/connection.py). Times come from the
-- database's clock alone, so that replicas need not agree on theirs.

CREATE TABLE node (
    node_id bigint PRIMARY KEY,
    public_key bytea NOT NULL,
    owner_id text NOT NULL,
    owner_name text NOT NULL,
    status text NOT NULL CHECK (status IN ('registered', 'online', 'offline', 'unregistered')),
    heartbeat_interval double precision NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    last_activated_at timestamptz,
    last_deactivated_at timestamptz,
    unregistered_at timestamptz,
    online_until timestamptz,
    heard_by text,
    registered_by_account boolean NOT NULL DEFAULT false,
    name text,
    location text,
    activations integer NOT NULL DEFAULT 1,
    version text NOT NULL DEFAULT '',
    address text NOT NULL DEFAULT '',
    unheard_since timestamptz,
    unlisted_at timestamptz,
    clock_ahead double precision,
    key_since timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);

-- A key belongs to at most one registered node, and to any number of unregistered ones.
CREATE UNIQUE INDEX node_key ON node (public_key) WHERE status <> 'unregistered';
CREATE INDEX node_former_key ON node (public_key) WHERE status = 'unregistered';

-- For the liveness check of online nodes, every second. The index does not have the deadline,
-- because every heartbeat would rewrite it.
CREATE INDEX node_online ON node (node_id) WHERE status = 'online';

-- When each node came and went.
CREATE TABLE node_presence (
    node_id bigint NOT NULL REFERENCES node ON DELETE CASCADE,
    at timestamptz NOT NULL,
    status text NOT NULL,
    PRIMARY KEY (node_id, at)
);

-- Notes that a node has come or gone, for any reason. The newest 200 notes are kept.
CREATE FUNCTION note_presence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO node_presence (node_id, at, status)
    VALUES (
        NEW.node_id,
        CASE NEW.status
            WHEN 'online' THEN coalesce(NEW.last_activated_at, now())
            WHEN 'offline' THEN coalesce(NEW.last_deactivated_at, now())
            ELSE now()
        END,
        NEW.status
    )
    ON CONFLICT (node_id, at) DO UPDATE SET status = excluded.status;
    DELETE FROM node_presence
    WHERE node_id = NEW.node_id AND at <= (
        SELECT at FROM node_presence WHERE node_id = NEW.node_id
        ORDER BY at DESC OFFSET 200 LIMIT 1
    );
    RETURN NULL;
END
$$;

CREATE TRIGGER node_presence_noted AFTER UPDATE OF status ON node
FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION note_presence();

-- Federations: the default one of callers without an account, and those that accounts have created,
-- for their SuperNodes or for simulations. The superlink's settings decide the kind of the default
-- one.
CREATE TABLE federation (
    name text PRIMARY KEY,
    description text NOT NULL,
    simulation_config bytea NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    archived_at timestamptz,
    simulation boolean NOT NULL DEFAULT true
);

INSERT INTO federation (name, description, simulation)
VALUES (
    '@none/default', 'The federation of everything that connects to this SuperLink.', false
);

CREATE TABLE federation_member (
    federation text NOT NULL REFERENCES federation,
    account_id text NOT NULL,
    account_name text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    joined_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (federation, account_id)
);

CREATE INDEX federation_of_account ON federation_member (account_id);

INSERT INTO federation_member (federation, account_id, account_name, role)
VALUES ('@none/default', '<id:none>', 'none', 'owner');

CREATE TABLE federation_node (
    federation text NOT NULL REFERENCES federation,
    node_id bigint NOT NULL REFERENCES node ON DELETE CASCADE,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (federation, node_id)
);

CREATE INDEX federation_of_node ON federation_node (node_id);

-- The nodes of federations. Nodes without an account are in the default federation.
CREATE VIEW node_membership AS
SELECT '@none/default'::text AS federation, node_id FROM node WHERE owner_id = '<id:none>'
UNION ALL
SELECT federation, node_id FROM federation_node;

CREATE TABLE invitation (
    invitation_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    federation text NOT NULL REFERENCES federation,
    inviter_id text NOT NULL,
    inviter_name text NOT NULL,
    invitee_id text NOT NULL,
    invitee_name text NOT NULL,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'accepted', 'rejected', 'revoked', 'expired')),
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz
);

CREATE UNIQUE INDEX invitation_pending ON invitation (federation, invitee_id)
WHERE status = 'pending';
CREATE INDEX invitation_of_invitee ON invitation (invitee_id);
CREATE INDEX invitation_of_inviter ON invitation (inviter_id);

-- How many runs at once, and how long a run: of a federation (`@account/name`) or an account (its
-- name), or of each (`*`). NULL: no limit.
CREATE TABLE quota (
    kind text NOT NULL CHECK (kind IN ('federation', 'account')),
    name text NOT NULL,
    runs_at_once integer CHECK (runs_at_once >= 0),
    run_seconds double precision CHECK (run_seconds > 0),
    PRIMARY KEY (kind, name)
);

CREATE TABLE fab (
    fab_hash text PRIMARY KEY,
    content bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Signatures of apps, by the hash of the FAB, which is often submitted later.
CREATE TABLE fab_signature (
    fab_hash text NOT NULL,
    key_id text NOT NULL,
    verification text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (fab_hash, key_id)
);

-- The apps of a federation: the newest FAB of each.
CREATE TABLE app (
    federation text NOT NULL,
    app_id text NOT NULL,
    fab_hash text NOT NULL REFERENCES fab,
    app_type text NOT NULL,
    display_name text NOT NULL,
    description text NOT NULL,
    color text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (federation, app_id)
);

CREATE TABLE series (
    series_id bigint PRIMARY KEY,
    federation text NOT NULL,
    description text NOT NULL,
    context bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    is_agent boolean NOT NULL DEFAULT false
);

CREATE INDEX series_updated ON series (updated_at);

-- Summaries that agents have made of the events of their series.
CREATE TABLE compacted_context (
    context_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    series_id bigint NOT NULL REFERENCES series,
    through_event_id bigint NOT NULL,
    text text NOT NULL,
    token_count bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (series_id, through_event_id)
);

CREATE TABLE run (
    run_id bigint PRIMARY KEY,
    series_id bigint NOT NULL REFERENCES series,
    primary_task_id bigint NOT NULL,
    fab_id text NOT NULL,
    fab_version text NOT NULL,
    fab_hash text NOT NULL REFERENCES fab,
    override_config bytea NOT NULL,
    federation text NOT NULL,
    account_id text NOT NULL,
    bytes_sent bigint NOT NULL DEFAULT 0,
    bytes_recv bigint NOT NULL DEFAULT 0,
    clientapp_runtime double precision NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    cleaned_at timestamptz,
    log_removed_at timestamptz,
    user_prompt text NOT NULL DEFAULT '',
    simulation_config bytea,
    account_name text NOT NULL DEFAULT 'none'
);

CREATE INDEX run_of_series ON run (series_id, created_at);
CREATE INDEX run_of_account ON run (account_id, created_at);
CREATE INDEX run_of_federation ON run (federation, created_at);

-- For housekeeping, which asks for the oldest runs.
CREATE INDEX run_created ON run (created_at);

-- Housekeeping asks every few seconds which runs still have data in the broker.
CREATE INDEX run_not_cleaned ON run (run_id) WHERE cleaned_at IS NULL;

-- It also asks which old runs still have a log.
CREATE INDEX run_with_log ON run (created_at) WHERE log_removed_at IS NULL;

CREATE TABLE task (
    task_id bigint PRIMARY KEY,
    run_id bigint NOT NULL REFERENCES run,
    type text NOT NULL,
    status text NOT NULL CHECK (status IN ('pending', 'starting', 'running', 'finished')),
    sub_status text NOT NULL DEFAULT '',
    details text NOT NULL DEFAULT '',
    pending_at timestamptz NOT NULL DEFAULT now(),
    starting_at timestamptz,
    running_at timestamptz,
    finished_at timestamptz,
    fab_hash text,
    model_ref text,
    connector_ref text,
    token_hash bytea UNIQUE,
    active_until timestamptz,
    heard_by text,
    taken_by text,
    taken_from text NOT NULL DEFAULT ''
);

CREATE INDEX task_of_run ON task (run_id);
CREATE INDEX task_unfinished ON task (status, pending_at) WHERE status <> 'finished';

-- A run is in the state of its primary task. Columns for housekeeping alone are left out.
CREATE VIEW run_state AS
SELECT
    run.run_id,
    run.series_id,
    run.primary_task_id,
    run.fab_id,
    run.fab_version,
    run.fab_hash,
    run.override_config,
    run.federation,
    run.account_id,
    run.bytes_sent,
    run.bytes_recv,
    run.clientapp_runtime,
    run.created_at,
    run.cleaned_at,
    task.type AS primary_task_type,
    task.status,
    task.sub_status,
    task.details,
    task.pending_at,
    task.starting_at,
    task.running_at,
    task.finished_at,
    run.account_name
FROM run
JOIN task ON task.task_id = run.primary_task_id;

-- Pending runs that wait until other runs of their account or federation have finished, in order of
-- arrival. A run that waits for its account does not delay other accounts of its federation.
CREATE VIEW run_held_back AS
WITH unfinished AS (
    SELECT run.federation, run.account_id, run.account_name, task.task_id, task.status,
        task.pending_at
    FROM task
    JOIN run ON run.primary_task_id = task.task_id
    WHERE task.status <> 'finished'
        AND EXISTS (SELECT FROM quota WHERE runs_at_once IS NOT NULL)
), of_account AS (
    SELECT
        unfinished.*,
        row_number() OVER (
            PARTITION BY account_id ORDER BY status = 'pending', pending_at, task_id
        ) > (
            SELECT runs_at_once FROM quota
            WHERE kind = 'account' AND lower(name) IN ('*', lower(unfinished.account_name))
            ORDER BY name = '*' LIMIT 1
        ) AS waits_for_account
    FROM unfinished
), of_federation AS (
    SELECT
        of_account.*,
        row_number() OVER (
            PARTITION BY federation, waits_for_account IS TRUE AND status = 'pending'
            ORDER BY status = 'pending', pending_at, task_id
        ) > (
            SELECT runs_at_once FROM quota
            WHERE kind = 'federation' AND name IN ('*', of_account.federation)
            ORDER BY name = '*' LIMIT 1
        ) AS waits_for_federation
    FROM of_account
)
SELECT task_id FROM of_federation
WHERE status = 'pending' AND (waits_for_account OR waits_for_federation);

-- Runs for lists: all columns but the overrides of their configurations, which may be large.
CREATE VIEW run_listed AS
SELECT
    run_id,
    series_id,
    primary_task_id,
    fab_id,
    fab_version,
    fab_hash,
    ''::bytea AS override_config,
    federation,
    account_id,
    bytes_sent,
    bytes_recv,
    clientapp_runtime,
    created_at,
    primary_task_type,
    status,
    sub_status,
    details,
    pending_at,
    starting_at,
    running_at,
    finished_at,
    account_name
FROM run_state;

-- The history of exchanges, for the console: when each instruction was released, taken and
-- answered. The broker alone knows the messages in flight; a row here may lack facts that were not
-- noted. It stays as long as the log of its run.
CREATE TABLE exchange (
    run_id bigint NOT NULL REFERENCES run,
    exchange_id bigint NOT NULL,
    node_id bigint,
    session_id bigint NOT NULL,
    message_type text NOT NULL,
    group_id text NOT NULL,
    put_out_at timestamptz,
    taken_at timestamptz,
    answered_at timestamptz,
    outcome text NOT NULL CHECK (outcome IN ('', 'answered', 'failed', 'unanswered')),
    reason text NOT NULL,
    bytes_sent bigint NOT NULL,
    bytes_recv bigint NOT NULL,
    metrics jsonb,
    PRIMARY KEY (run_id, exchange_id)
) WITH (fillfactor = 80);

CREATE INDEX exchange_node ON exchange (node_id, run_id);

CREATE TABLE task_event (
    event_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run_id bigint NOT NULL REFERENCES run,
    task_id bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    event text NOT NULL,
    data text NOT NULL
);

CREATE INDEX task_event_of_run ON task_event (run_id, event_id);

CREATE TABLE task_message (
    message_id text PRIMARY KEY,
    dst_task_id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    body bytea NOT NULL,
    src_task_id bigint NOT NULL DEFAULT 0
);

CREATE INDEX task_message_of_task ON task_message (dst_task_id, created_at);

CREATE TABLE task_usage (
    usage_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    task_id bigint NOT NULL,
    run_id bigint NOT NULL REFERENCES run,
    created_at timestamptz NOT NULL DEFAULT now(),
    body bytea NOT NULL
);

-- Who may call the Control API: people and their programs.
CREATE TABLE account (
    account_id text PRIMARY KEY,
    name text NOT NULL,
    issuer text NOT NULL DEFAULT '',
    subject text NOT NULL,
    role text NOT NULL CHECK (role IN ('user', 'operator')),
    password_hash text,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz,
    UNIQUE (issuer, subject)
);

-- Names are unique in any case of letters, because people would confuse two that differ only by
-- case.
CREATE UNIQUE INDEX account_name ON account (lower(name));

-- Sessions of accounts: a `flwr login`, or a program with a named token.
CREATE TABLE account_session (
    session_id text PRIMARY KEY,
    account_id text NOT NULL REFERENCES account,
    name text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    issuer_token bytea,
    issuer_seen_at timestamptz,
    issuer_asked_until timestamptz
);

CREATE INDEX account_session_of_account ON account_session (account_id);
CREATE UNIQUE INDEX account_session_name ON account_session (account_id, name);

-- Hashes of tokens. The end of a session removes its tokens.
CREATE TABLE account_token (
    token_hash bytea PRIMARY KEY,
    session_id text NOT NULL REFERENCES account_session ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('access', 'refresh')),
    expires_at timestamptz NOT NULL,
    replaced_at timestamptz
);

CREATE INDEX account_token_of_session ON account_token (session_id);

-- Open `flwr login`s: the command has the device code, the person has the code to confirm.
CREATE TABLE device_login (
    device_hash bytea PRIMARY KEY,
    user_code text NOT NULL UNIQUE,
    asked_from text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    account_id text REFERENCES account,
    issued_at timestamptz,
    refused_at timestamptz,
    issuer_secret bytea,
    issuer_page text,
    issuer_code text,
    poll_at timestamptz
);

-- Failed logins, by account or by address, which may be locked.
CREATE TABLE login_failure (
    what text PRIMARY KEY,
    failures integer NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT now(),
    locked_until timestamptz
);

-- The links of `flwr pull`, with only the hashes of their tokens.
CREATE TABLE download (
    token_hash bytea PRIMARY KEY,
    run_id bigint NOT NULL,
    session_id text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- The audit trail: a chain of events. The hash of each event includes the hash of the event before.
CREATE TABLE audit_event (
    event_id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    account_id text NOT NULL,
    account_name text NOT NULL,
    address text NOT NULL,
    action text NOT NULL,
    object text NOT NULL,
    outcome text NOT NULL,
    request_id text NOT NULL,
    hash bytea NOT NULL
);

CREATE INDEX audit_event_of_request ON audit_event (request_id, action);
CREATE INDEX audit_event_at ON audit_event (at);

-- The only row has the end of the chain, and the last event that was removed because of its age.
CREATE TABLE audit_chain (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    last_id bigint NOT NULL,
    last_hash bytea NOT NULL,
    forgotten_id bigint NOT NULL,
    forgotten_hash bytea NOT NULL
);

INSERT INTO audit_chain (last_id, last_hash, forgotten_id, forgotten_hash) VALUES (0, '', 0, '');

-- Events cannot be changed. The owner of the table can lift this, but the hashes would then show
-- it.
CREATE FUNCTION keep_audit_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('flower_nats.audit_retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'audit events are never changed, and removed by their age alone';
END $$;

CREATE TRIGGER audit_event_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event
FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_events();

-- For how many days events are kept at least, 0 for ever. Only the owner can change it, not
-- superlinks.
CREATE TABLE audit_bound (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    least_days integer NOT NULL CHECK (least_days >= 0)
);

INSERT INTO audit_bound (least_days) VALUES (730);

-- Remove events that are older than the given days and the owner's bound; the chain goes on from
-- the last of them. It stops at the first younger event, so that an event with a forged old time
-- removes none.
CREATE FUNCTION forget_audit_events(days integer) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    bound integer;
    kept bigint;
    newest record;
    count bigint;
BEGIN
    SELECT least_days INTO bound FROM audit_bound;
    IF bound IS NULL OR bound = 0 THEN
        RETURN 0;
    END IF;
    PERFORM FROM audit_chain FOR UPDATE;
    SELECT event_id INTO kept FROM audit_event
    WHERE at >= now() - make_interval(days => greatest(days, bound))
    ORDER BY event_id LIMIT 1;
    SELECT event_id, hash INTO newest FROM audit_event
    WHERE kept IS NULL OR event_id < kept
    ORDER BY event_id DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM set_config('flower_nats.audit_retention', 'on', true);
    DELETE FROM audit_event WHERE event_id <= newest.event_id;
    GET DIAGNOSTICS count = ROW_COUNT;
    PERFORM set_config('flower_nats.audit_retention', 'off', true);
    UPDATE audit_chain SET forgotten_id = newest.event_id, forgotten_hash = newest.hash;
    RETURN count;
END $$;

CREATE TABLE nonce (
    namespace text NOT NULL,
    nonce text NOT NULL,
    holder text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, nonce)
);

CREATE TABLE lease (
    name text PRIMARY KEY,
    holder text NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE TABLE replica (
    kind text NOT NULL,
    id text NOT NULL,
    since timestamptz NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    simulations integer,
    about jsonb NOT NULL DEFAULT '{}',
    -- Since when the replica counts as lost; NULL while it is heard.
    lost_at timestamptz,
    PRIMARY KEY (kind, id)
);

-- Answers to requests that must not be carried out twice, for repetitions by gateways.
CREATE TABLE answer (
    request_id text PRIMARY KEY,
    response bytea,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The only row says when a heartbeat could last be heard. NULL: never.
CREATE TABLE hearing (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    heard_at timestamptz,
    heard_since timestamptz
);

INSERT INTO hearing (heard_at) VALUES (NULL);

-- Whether the silence of who was last heard through a gateway proves anything just now: not while no
-- heartbeat of anybody could be heard, nor while that gateway itself is silent and may come back.
CREATE FUNCTION silence_counts(
    heard_by text, deaf_after double precision, absence double precision
) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT (SELECT heard_at FROM hearing) > now() - make_interval(secs => deaf_after)
        AND NOT EXISTS (
            SELECT FROM replica
            WHERE kind = 'gateway' AND id = heard_by
                AND seen_at < now() - make_interval(secs => deaf_after)
                AND seen_at > now() - make_interval(secs => absence)
        )
$$;

-- Events of the runtime, for people. Triggers make events of changes in other tables, once and in
-- the same transaction. Superlinks add other events, such as outages (`store/runtime_events.py`).
-- Old events are removed.
CREATE TABLE runtime_event (
    event_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    -- The object of the event, if a second event of the same kind would say nothing new.
    subject text NOT NULL DEFAULT '',
    name text NOT NULL DEFAULT '',
    details text NOT NULL DEFAULT '',
    federation text,
    run_id bigint,
    node_id bigint
);

CREATE INDEX runtime_event_newest ON runtime_event (at, event_id);
CREATE INDEX runtime_event_of_subject ON runtime_event (subject, at) WHERE subject <> '';

CREATE FUNCTION note_run_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runtime_event (kind, name, details, federation, run_id)
    SELECT
        CASE NEW.status WHEN 'finished' THEN 'run_' || NEW.sub_status ELSE 'run_started' END,
        fab_id || ' ' || fab_version, left(NEW.details, 500), federation, run_id
    FROM run WHERE run_id = NEW.run_id AND primary_task_id = NEW.task_id;
    RETURN NULL;
END $$;

CREATE TRIGGER task_changed AFTER UPDATE OF status ON task FOR EACH ROW
WHEN (OLD.status <> NEW.status AND NEW.status IN ('running', 'finished'))
EXECUTE FUNCTION note_run_event();

CREATE FUNCTION note_run_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runtime_event (kind, name, federation, run_id)
    VALUES ('run_deleted', OLD.fab_id || ' ' || OLD.fab_version, OLD.federation, OLD.run_id);
    RETURN NULL;
END $$;

CREATE TRIGGER run_deleted AFTER DELETE ON run FOR EACH ROW EXECUTE FUNCTION note_run_deletion();

-- A node that leaves after its farewell has no deadline; a silent node has missed its deadline.
CREATE FUNCTION note_node_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runtime_event (kind, name, details, node_id)
    VALUES (
        'node_' || NEW.status, coalesce(NEW.name, ''),
        CASE WHEN NEW.status = 'offline' AND NEW.online_until IS NOT NULL
            THEN 'It was not heard any more.' ELSE '' END,
        NEW.node_id
    );
    RETURN NULL;
END $$;

CREATE TRIGGER node_changed AFTER UPDATE OF status ON node FOR EACH ROW
WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION note_node_event();
CREATE TRIGGER node_added AFTER INSERT ON node FOR EACH ROW
WHEN (NEW.registered_by_account) EXECUTE FUNCTION note_node_event();

-- `lost_at` says since when a replica counts as lost. The row of a replica is removed at its
-- farewell.
CREATE FUNCTION note_replica_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    one replica;
    what text;
    why text := '';
BEGIN
    IF TG_OP = 'DELETE' THEN
        one := OLD;
        what := 'replica_drained';
    ELSIF TG_OP = 'INSERT' THEN
        one := NEW;
        what := 'replica_started';
    ELSE
        one := NEW;
        what := CASE WHEN NEW.lost_at IS NULL THEN 'replica_back' ELSE 'replica_lost' END;
        IF OLD.since <> NEW.since THEN
            why := 'Its process had died; this is another one. ';
        END IF;
    END IF;
    INSERT INTO runtime_event (kind, name, details)
    VALUES (
        what,
        -- The ids of superlinks are long, and nobody types them.
        one.kind || ' ' || CASE WHEN one.id ~ '^[0-9a-f]{32}$' THEN left(one.id, 8) ELSE one.id END,
        why || coalesce('On ' || (one.about ->> 'host') || ', process ' || (one.about ->> 'pid') || '.', '')
    );
    RETURN NULL;
END $$;

CREATE TRIGGER replica_added AFTER INSERT ON replica FOR EACH ROW
EXECUTE FUNCTION note_replica_event();
CREATE TRIGGER replica_changed AFTER UPDATE ON replica FOR EACH ROW
WHEN ((OLD.lost_at IS NULL) <> (NEW.lost_at IS NULL) OR OLD.since <> NEW.since)
EXECUTE FUNCTION note_replica_event();
CREATE TRIGGER replica_removed AFTER DELETE ON replica FOR EACH ROW
WHEN (OLD.lost_at IS NULL) EXECUTE FUNCTION note_replica_event();

CREATE FUNCTION note_federation_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runtime_event (kind, name, details, federation)
    VALUES (
        'federation_changed', NEW.name,
        CASE WHEN NEW.archived_at IS NULL THEN 'It was created.' ELSE 'It was archived.' END,
        NEW.name
    );
    RETURN NULL;
END $$;

CREATE TRIGGER federation_added AFTER INSERT ON federation FOR EACH ROW
EXECUTE FUNCTION note_federation_event();
CREATE TRIGGER federation_archived AFTER UPDATE ON federation FOR EACH ROW
WHEN (OLD.archived_at IS NULL AND NEW.archived_at IS NOT NULL)
EXECUTE FUNCTION note_federation_event();

CREATE FUNCTION note_member_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    one federation_member := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO runtime_event (kind, name, details, federation)
    VALUES (
        'federation_changed', one.federation,
        'Account ' || one.account_name || CASE TG_OP
            WHEN 'INSERT' THEN ' has joined as ' || one.role || '.'
            WHEN 'DELETE' THEN ' has left, or was removed.'
            ELSE ' is ' || one.role || ' now.'
        END,
        one.federation
    );
    RETURN NULL;
END $$;

CREATE TRIGGER member_changed AFTER INSERT OR DELETE ON federation_member FOR EACH ROW
EXECUTE FUNCTION note_member_event();
CREATE TRIGGER member_role_changed AFTER UPDATE ON federation_member FOR EACH ROW
WHEN (OLD.role <> NEW.role) EXECUTE FUNCTION note_member_event();

CREATE FUNCTION note_member_node_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    one federation_node := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO runtime_event (kind, name, details, federation, node_id)
    VALUES (
        'federation_changed', one.federation,
        'A SuperNode was ' || CASE TG_OP WHEN 'INSERT' THEN 'added' ELSE 'taken out' END || coalesce(
            (SELECT ': ' || name FROM node WHERE node_id = one.node_id AND name <> ''), ''
        ) || '.',
        one.federation, one.node_id
    );
    RETURN NULL;
END $$;

CREATE TRIGGER federation_node_changed AFTER INSERT OR DELETE ON federation_node FOR EACH ROW
EXECUTE FUNCTION note_member_node_event();

-- For searches in the errors of all runs by time.
CREATE INDEX exchange_failed ON exchange (answered_at) WHERE outcome IN ('failed', 'unanswered');
CREATE INDEX task_failed ON task (finished_at) WHERE sub_status = 'failed';

-- Webhooks, and their waiting deliveries. `secret` signs a delivery.
CREATE TABLE webhook (
    webhook_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    url text NOT NULL,
    secret text NOT NULL,
    kinds text[] NOT NULL,
    federation text,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    delivered_at timestamptz
);

-- A delivery that has succeeded has no row. `next_at` is NULL for a delivery that was given up.
CREATE TABLE webhook_delivery (
    webhook_id bigint NOT NULL REFERENCES webhook ON DELETE CASCADE,
    event_id bigint NOT NULL REFERENCES runtime_event ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    tries integer NOT NULL DEFAULT 0,
    next_at timestamptz DEFAULT now(),
    error text NOT NULL DEFAULT '',
    PRIMARY KEY (webhook_id, event_id)
);

CREATE INDEX webhook_delivery_due ON webhook_delivery (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX webhook_delivery_of_event ON webhook_delivery (event_id);

CREATE FUNCTION plan_deliveries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_delivery (webhook_id, event_id)
    SELECT webhook_id, NEW.event_id FROM webhook
    WHERE NEW.kind = ANY (kinds)
        AND (
            federation IS NULL
            OR federation = NEW.federation
            OR (NEW.federation IS NULL AND EXISTS (
                SELECT FROM node_membership
                WHERE node_id = NEW.node_id AND node_membership.federation = webhook.federation
            ))
        );
    RETURN NULL;
END $$;

CREATE TRIGGER runtime_event_added AFTER INSERT ON runtime_event FOR EACH ROW
EXECUTE FUNCTION plan_deliveries();
