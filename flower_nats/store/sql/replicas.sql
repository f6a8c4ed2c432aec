-- announce: Note that a replica lives.
INSERT INTO replica (kind, id, since) VALUES (%(kind)s, %(id)s, to_timestamp(%(since)s))
ON CONFLICT (kind, id) DO UPDATE SET since = excluded.since, seen_at = now();

-- leave: Forget a replica that ends.
DELETE FROM replica WHERE kind = %(kind)s AND id = %(id)s;

-- list: The replicas that were seen lately.
SELECT kind, id, since FROM replica
WHERE seen_at > now() - make_interval(secs => %(seconds)s)
ORDER BY kind, since, id;

-- drop_gone: Forget replicas that have not been seen for long.
DELETE FROM replica WHERE seen_at < now() - make_interval(secs => %(seconds)s);

-- heard: Note that heartbeats can be heard, and give back the time in which they could not be.
WITH before AS (
    SELECT heard_at FROM hearing FOR UPDATE
), deaf AS (
    SELECT now() - heard_at AS span FROM before
    WHERE heard_at < now() - make_interval(secs => %(deaf_after)s)
), nodes AS (
    UPDATE node SET online_until = online_until + deaf.span FROM deaf WHERE status = 'online'
), tasks AS (
    UPDATE task SET active_until = active_until + deaf.span FROM deaf
    WHERE status IN ('starting', 'running')
), noted AS (
    UPDATE hearing SET heard_at = now()
)
SELECT extract(epoch FROM span)::double precision AS deaf_seconds FROM deaf;
