-- Federations of SuperNodes: members with roles, nodes, invitations; and limits.

ALTER TABLE federation ADD COLUMN simulation boolean NOT NULL DEFAULT true;
UPDATE federation SET simulation = false WHERE name = '@none/default';

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
SELECT name, '<id:none>', 'none', 'owner' FROM federation;

CREATE TABLE federation_node (
    federation text NOT NULL REFERENCES federation,
    node_id bigint NOT NULL REFERENCES node ON DELETE CASCADE,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (federation, node_id)
);

CREATE INDEX federation_of_node ON federation_node (node_id);

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

ALTER TABLE run ADD COLUMN account_name text NOT NULL DEFAULT 'none';
CREATE INDEX run_of_federation ON run (federation, created_at);

CREATE OR REPLACE VIEW run_state AS
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

CREATE OR REPLACE VIEW run_listed AS
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

CREATE TABLE quota (
    kind text NOT NULL CHECK (kind IN ('federation', 'account')),
    name text NOT NULL,
    runs_at_once integer CHECK (runs_at_once >= 0),
    run_seconds double precision CHECK (run_seconds > 0),
    PRIMARY KEY (kind, name)
);

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
