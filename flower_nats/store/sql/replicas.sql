-- announce: Note a replica's sign of life; if a gateway was away, move the deadlines of nodes and tasks that it was the
-- last to hear.
WITH away AS (
    SELECT now() - seen_at AS span FROM replica
    WHERE kind = %(kind)s AND id = %(id)s AND kind = 'gateway'
        AND seen_at < now() - make_interval(secs => %(deaf_after)s)
        -- If no gateway could be heard at all, `heard` moves all deadlines.
        AND (SELECT heard_at FROM hearing) > now() - make_interval(secs => %(deaf_after)s)
), nodes AS (
    UPDATE node SET online_until = online_until + away.span FROM away
    WHERE status = 'online' AND heard_by = %(id)s
), tasks AS (
    UPDATE task SET active_until = active_until + away.span FROM away
    WHERE status IN ('starting', 'running') AND heard_by = %(id)s
), noted AS (
    INSERT INTO replica (kind, id, since, simulations, about)
    VALUES (%(kind)s, %(id)s, to_timestamp(%(since)s), %(simulations)s, %(about)s)
    ON CONFLICT (kind, id) DO UPDATE
    SET
        since = excluded.since,
        seen_at = now(),
        simulations = excluded.simulations,
        about = excluded.about,
        lost_at = NULL
)
SELECT extract(epoch FROM span)::double precision AS away_seconds FROM away;

-- leave: Forget a replica that ends.
DELETE FROM replica WHERE kind = %(kind)s AND id = %(id)s;

-- list: The replicas that were seen lately.
SELECT
    kind, id, since, simulations, about,
    extract(epoch FROM now() - seen_at)::double precision AS silent_seconds
FROM replica
WHERE seen_at > now() - make_interval(secs => %(seconds)s)
ORDER BY kind, since, id;

-- superexec_hosts: The hosts that run a SuperExec, newest first.
SELECT id FROM replica WHERE kind = 'superexec' ORDER BY since DESC;

-- note_lost: Mark replicas that were not seen for long as lost.
UPDATE replica SET lost_at = now()
WHERE lost_at IS NULL AND seen_at < now() - make_interval(secs => %(seconds)s)
RETURNING kind, id;

-- drop_gone: Remove replicas that were not seen for long.
DELETE FROM replica WHERE seen_at < now() - make_interval(secs => %(seconds)s);

-- heard: Note that heartbeats can be heard, and move deadlines by the time in which they could not.
WITH before AS (
    SELECT heard_at FROM hearing FOR UPDATE
), deaf AS (
    SELECT now() - heard_at AS span FROM before
    WHERE heard_at < now() - make_interval(secs => %(deaf_after)s)
), nodes AS (
    -- These nodes and tasks need no gateway any more: if it is gone for good, they must not wait for it.
    UPDATE node
    SET online_until = online_until + deaf.span, heard_by = NULL, unheard_since = now()
    FROM deaf
    WHERE status = 'online'
), tasks AS (
    UPDATE task SET active_until = active_until + deaf.span, heard_by = NULL FROM deaf
    WHERE status IN ('starting', 'running')
), gateways AS (
    -- Gateways that were alive at its beginning were away for no longer than this.
    UPDATE replica SET seen_at = now() FROM before, deaf
    WHERE kind = 'gateway'
        AND seen_at > before.heard_at - make_interval(secs => %(deaf_after)s)
), noted AS (
    UPDATE hearing SET
        heard_at = now(),
        heard_since = CASE WHEN EXISTS (SELECT FROM deaf) THEN now() ELSE heard_since END
)
SELECT extract(epoch FROM span)::double precision AS deaf_seconds FROM deaf;

-- heard_since: When the last outage ended.
SELECT heard_since FROM hearing;

-- is_heard: Whether heartbeats have reached the database lately.
SELECT heard_at > now() - make_interval(secs => %(deaf_after)s) AS is_heard FROM hearing;
