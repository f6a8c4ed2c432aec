-- Metadata of the runtime: nodes, FABs, run series, runs, tasks, and what housekeeping needs.
-- Every bigint is an unsigned 64-bit number (see store/connection.py). Times come from the
-- database's clock alone, so that replicas need not agree on theirs.

CREATE TABLE node (
    node_id bigint PRIMARY KEY,
    public_key bytea NOT NULL UNIQUE,
    owner_id text NOT NULL,
    owner_name text NOT NULL,
    status text NOT NULL CHECK (status IN ('registered', 'online', 'offline', 'unregistered')),
    heartbeat_interval double precision NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    last_activated_at timestamptz,
    last_deactivated_at timestamptz,
    unregistered_at timestamptz,
    online_until timestamptz
) WITH (fillfactor = 70);

-- For the liveness check of online nodes, every second. The index does not have the deadline,
-- because every heartbeat would rewrite it.
CREATE INDEX node_online ON node (node_id) WHERE status = 'online';

CREATE TABLE fab (
    fab_hash text PRIMARY KEY,
    content bytea NOT NULL,
    verifications jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE series (
    series_id bigint PRIMARY KEY,
    federation text NOT NULL,
    description text NOT NULL,
    context bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX series_updated ON series (updated_at);

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
    cleaned_at timestamptz
);

CREATE INDEX run_of_series ON run (series_id, created_at);
CREATE INDEX run_of_account ON run (account_id, created_at);

-- Housekeeping asks every few seconds which runs still have data in the broker.
CREATE INDEX run_not_cleaned ON run (run_id) WHERE cleaned_at IS NULL;

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
    claim_request text,
    active_until timestamptz
);

CREATE INDEX task_of_run ON task (run_id);
CREATE INDEX task_unfinished ON task (status, pending_at) WHERE status <> 'finished';

-- A run is in the state of its primary task.
CREATE VIEW run_state AS
SELECT
    run.*,
    task.type AS primary_task_type,
    task.status,
    task.sub_status,
    task.details,
    task.pending_at,
    task.starting_at,
    task.running_at,
    task.finished_at
FROM run
JOIN task ON task.task_id = run.primary_task_id;

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
    body bytea NOT NULL
);

CREATE INDEX task_message_of_task ON task_message (dst_task_id, created_at);

CREATE TABLE task_usage (
    usage_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    task_id bigint NOT NULL,
    run_id bigint NOT NULL REFERENCES run,
    created_at timestamptz NOT NULL DEFAULT now(),
    body bytea NOT NULL
);

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
    heard_at timestamptz
);

INSERT INTO hearing (heard_at) VALUES (NULL);
