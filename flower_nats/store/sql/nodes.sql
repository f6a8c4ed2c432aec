-- register: Store a node under its key; none if the key is known, unless an account vouches for a node that has
-- registered itself. The key of an unregistered node gets a new node. If an account had registered it, only that
-- account may do so.
INSERT INTO node (
    node_id, public_key, owner_id, owner_name, status, heartbeat_interval, registered_by_account,
    name, location
)
SELECT
    %(node_id)s, %(public_key)s, %(owner_id)s, %(owner_name)s, 'registered',
    %(heartbeat_interval)s, %(by_account)s, %(name)s, %(location)s
WHERE NOT EXISTS (
    SELECT FROM node
    WHERE public_key = %(public_key)s AND status = 'unregistered'
        AND registered_by_account
        AND NOT (%(by_account)s AND owner_id = %(owner_id)s)
)
ON CONFLICT (public_key) WHERE status <> 'unregistered' DO UPDATE
SET
    owner_id = excluded.owner_id,
    owner_name = excluded.owner_name,
    registered_by_account = true,
    name = excluded.name,
    location = excluded.location,
    unlisted_at = NULL
WHERE excluded.registered_by_account AND NOT node.registered_by_account
RETURNING node_id;

-- resolve: The node of a key; if there is none, the last one, unless it was unregistered some time ago.
SELECT node_id, registered_by_account, status = 'unregistered' AS has_left
FROM node
WHERE public_key = %(public_key)s
    AND (
        status <> 'unregistered'
        OR unregistered_at > now() - make_interval(secs => %(farewell)s)
    )
ORDER BY unregistered_at DESC NULLS FIRST
LIMIT 1;

-- activate: Bring the node of a key online; if it is online, as a further process.
UPDATE node
SET
    status = 'online',
    activations = CASE node.status WHEN 'online' THEN least(node.activations + 1, 100) ELSE 1 END,
    last_activated_at = now(),
    heartbeat_interval = %(heartbeat_interval)s,
    online_until = now() + make_interval(secs => %(patience)s * %(heartbeat_interval)s),
    heard_by = %(gateway)s,
    unheard_since = NULL,
    unlisted_at = NULL,
    version = %(version)s,
    address = %(address)s
WHERE public_key = %(public_key)s AND status <> 'unregistered'
    AND (registered_by_account OR NOT %(only_registered)s)
RETURNING node_id;

-- deactivate: Take an online node offline after its farewell, which the missing deadline marks. If another process of
-- the node has come since, the node stays online if that process is heard soon.
UPDATE node
SET
    status = CASE WHEN activations > 1 THEN status ELSE 'offline' END,
    activations = activations - 1,
    last_deactivated_at = CASE WHEN activations > 1 THEN last_deactivated_at ELSE now() END,
    online_until = CASE WHEN activations > 1 THEN least(
        online_until, now() + make_interval(secs => heartbeat_interval + %(margin)s)
    ) END
WHERE node_id = %(node_id)s AND status = 'online'
RETURNING status;

-- rotate_key: Replace the key of a node by one that no node has; the old key is then unknown.
UPDATE node
SET
    public_key = %(public_key)s,
    key_since = now(),
    status = CASE status WHEN 'online' THEN 'offline' ELSE status END,
    last_deactivated_at = CASE status WHEN 'online' THEN now() ELSE last_deactivated_at END,
    online_until = NULL
WHERE node_id = %(node_id)s AND status <> 'unregistered'
    AND NOT EXISTS (
        SELECT FROM node AS other
        WHERE other.public_key = %(public_key)s AND other.status <> 'unregistered'
    )
RETURNING node_id;

-- unregister: Remove a node for good; its row stays, and says who may register its key again.
UPDATE node
SET
    status = 'unregistered',
    unregistered_at = now(),
    online_until = least(online_until, now())
WHERE node_id = %(node_id)s AND status <> 'unregistered'
    AND (%(owner_id)s::text IS NULL OR owner_id = %(owner_id)s)
RETURNING node_id;

-- heartbeats: Note a batch of heartbeats; returns the ids of registered nodes.
WITH beat AS (
    SELECT DISTINCT ON (node_id) node_id, seconds, ahead
    FROM unnest(
        %(node_ids)s::bigint[], %(intervals)s::double precision[], %(aheads)s::double precision[]
    ) AS beats (node_id, seconds, ahead)
    ORDER BY node_id
), known AS (
    -- The order of locks is always the same, because batches of several gateways may overlap.
    SELECT
        node.node_id,
        beat.seconds,
        beat.ahead,
        -- Its last heartbeat may come after its farewell, because gateways collect heartbeats.
        coalesce(
            node.status = 'offline'
            AND node.online_until IS NULL
            AND node.last_deactivated_at > now() - make_interval(secs => %(farewell)s),
            false
        ) AS has_left
    FROM node JOIN beat USING (node_id)
    WHERE node.status <> 'unregistered'
    ORDER BY node.node_id
    FOR NO KEY UPDATE OF node
), noted AS (
    UPDATE node
    SET
        status = 'online',
        activations = CASE node.status WHEN 'online' THEN node.activations ELSE 1 END,
        last_activated_at =
            CASE node.status WHEN 'online' THEN node.last_activated_at ELSE now() END,
        heartbeat_interval = known.seconds,
        clock_ahead = coalesce(known.ahead, node.clock_ahead),
        online_until = now() + make_interval(secs => %(patience)s * known.seconds),
        heard_by = %(gateway)s,
        unheard_since = NULL,
        unlisted_at = NULL
    FROM known
    WHERE node.node_id = known.node_id AND NOT known.has_left
)
SELECT node_id FROM known;

-- seen: Note nodes that were heard after an outage by other calls than heartbeats.
UPDATE node SET unheard_since = NULL, heard_by = %(gateway)s
WHERE node_id = ANY (%(node_ids)s::bigint[]) AND unheard_since IS NOT NULL;

-- any_online: A row if there is a node that could fall silent.
SELECT 1 AS found FROM node WHERE status = 'online' LIMIT 1;

-- expire: Take nodes offline that were silent while heartbeats could be heard.
UPDATE node
SET status = 'offline', last_deactivated_at = online_until
WHERE status = 'online' AND online_until <= now()
    AND silence_counts(heard_by, %(deaf_after)s, %(absence)s)
RETURNING node_id;

-- forget: Remove nodes that have registered themselves and were not seen for long, or are too many of one status.
DELETE FROM node
USING (
    SELECT
        node_id,
        status,
        since,
        row_number() OVER (PARTITION BY status ORDER BY since DESC) AS place
    FROM (
        SELECT
            node_id,
            status,
            greatest(registered_at, last_deactivated_at, unregistered_at) AS since
        FROM node
        WHERE status <> 'online' AND NOT registered_by_account
    ) AS unseen
) AS old
WHERE node.node_id = old.node_id AND node.status = old.status
    AND (old.since < now() - make_interval(secs => %(seconds)s) OR old.place > %(kept)s)
RETURNING node.node_id, node.status;

-- statuses: The status of each of these nodes that exists.
SELECT node_id, status FROM node WHERE node_id = ANY (%(node_ids)s::bigint[]);

-- last_heard: These nodes, and when each was last heard; unknown after a farewell.
SELECT
    node_id,
    status,
    name,
    location,
    version,
    address,
    unheard_since IS NOT NULL AS is_unheard,
    online_until - make_interval(secs => %(patience)s * heartbeat_interval) AS heard_at
FROM node WHERE node_id = ANY (%(node_ids)s::bigint[]);

-- listed: Nodes for `flower-nats status`: online ones first, then the last seen.
SELECT
    node_id,
    status,
    name,
    location,
    version,
    address,
    unheard_since IS NOT NULL AS is_unheard,
    CASE status
        WHEN 'online' THEN
            online_until - make_interval(secs => %(patience)s * heartbeat_interval)
        ELSE last_deactivated_at
    END AS heard_at
FROM node
WHERE status <> 'unregistered' AND unlisted_at IS NULL
ORDER BY status = 'online' DESC, heard_at DESC NULLS LAST, node_id
LIMIT %(most)s;

-- is_awaited: Whether a node of a run's federation that was online before an outage, which has just ended, may still be
-- heard.
SELECT EXISTS (
    SELECT FROM run
    JOIN node_membership USING (federation)
    JOIN node USING (node_id)
    WHERE run_id = %(run_id)s
        AND node.status = 'online'
        AND node.unheard_since > now() - make_interval(secs => %(seconds)s)
) AS is_awaited;

-- online_of_run: The nodes of a run's federation that are online, and were heard since the last outage.
SELECT node.* FROM run
JOIN node_membership USING (federation)
JOIN node USING (node_id)
WHERE run_id = %(run_id)s AND node.status = 'online' AND node.unheard_since IS NULL
ORDER BY node_id;

-- statuses_of_run: The status of each of these nodes that is in a run's federation.
SELECT node_id, node.status FROM run
JOIN node_membership USING (federation)
JOIN node USING (node_id)
WHERE run_id = %(run_id)s AND node_id = ANY (%(node_ids)s::bigint[]);

-- reachable: Those of these pairs of a run and a node of its federation whose node is online.
SELECT run_id, node_id
FROM unnest(%(run_ids)s::bigint[], %(node_ids)s::bigint[]) AS pair (run_id, node_id)
JOIN run USING (run_id)
JOIN node_membership USING (federation, node_id)
JOIN node USING (node_id)
WHERE node.status = 'online';

-- of_federation: The nodes of a federation, oldest first.
SELECT node.* FROM node_membership
JOIN node USING (node_id)
WHERE federation = %(federation)s
    AND node.status <> 'unregistered' AND node.unlisted_at IS NULL
ORDER BY node.registered_at, node_id;

-- newest: The nodes of the federations that an account is in, and its own, or all: online ones first, then the last
-- seen.
SELECT
    *,
    unheard_since IS NOT NULL AS is_unheard,
    CASE status
        WHEN 'online' THEN online_until - make_interval(secs => %(patience)s * heartbeat_interval)
        ELSE last_deactivated_at
    END AS heard_at
FROM node
WHERE status <> 'unregistered'
    -- A node that is asked for by id is shown, even if lists leave it out.
    AND CASE WHEN %(node_id)s::bigint IS NULL THEN unlisted_at IS NULL ELSE node_id = %(node_id)s END
    AND (
        %(account_id)s::text IS NULL
        OR owner_id = %(account_id)s
        OR node_id IN (
            SELECT node_id FROM node_membership JOIN federation_member USING (federation)
            WHERE account_id = %(account_id)s
        )
    )
ORDER BY status = 'online' DESC, greatest(registered_at, last_deactivated_at) DESC, node_id
LIMIT %(limit)s;

-- presence: When a node came and went, the newest first.
SELECT at, status FROM node_presence WHERE node_id = %(node_id)s ORDER BY at DESC LIMIT %(limit)s;

-- list: The nodes that an account has registered, or all, except those that lists leave out.
SELECT * FROM node
WHERE (%(owner_id)s::text IS NULL OR owner_id = %(owner_id)s) AND unlisted_at IS NULL
ORDER BY registered_at, node_id;

-- owner: The account of a registered node.
SELECT owner_id FROM node WHERE node_id = %(node_id)s AND status <> 'unregistered';

-- counts: The number of listed nodes in each status.
SELECT status, count(*) AS count FROM node WHERE unlisted_at IS NULL GROUP BY status;

-- versions_online: The number of online nodes for the most frequent versions of flwr.
SELECT version, count(*) AS count FROM node WHERE status = 'online'
GROUP BY version ORDER BY count(*) DESC, version LIMIT 50;

-- unlist: Leave nodes that were not online for some days out of lists. Their rows stay.
UPDATE node SET unlisted_at = now()
WHERE status <> 'online' AND unlisted_at IS NULL
    AND greatest(registered_at, last_activated_at, last_deactivated_at, unregistered_at)
        < now() - make_interval(secs => %(seconds)s)
RETURNING node_id;
