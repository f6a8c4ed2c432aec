-- lock_subject: Let one transaction at a time check the last event of a subject.
SELECT pg_advisory_xact_lock(hashtextextended('runtime_event ' || %(subject)s, 0));

-- note: Add an event, unless its subject has a later one, or its last one is of the same kind and not
-- older than `within` seconds (NULL: however old). With `after`, only if the last one is of that kind.
WITH latest AS (
    SELECT kind, at FROM runtime_event
    WHERE subject = %(subject)s AND subject <> ''
    ORDER BY at DESC, event_id DESC LIMIT 1
), new AS (
    SELECT now() - make_interval(secs => %(age)s) AS at
)
INSERT INTO runtime_event (at, kind, subject, name, details)
SELECT new.at, %(kind)s, %(subject)s, %(name)s, %(details)s
FROM new LEFT JOIN latest ON true
WHERE (latest.at IS NULL OR latest.at < new.at)
    AND (%(after)s::text IS NULL OR latest.kind = %(after)s)
    AND NOT coalesce(
        latest.kind = %(kind)s AND (
            %(within)s::double precision IS NULL
            OR latest.at > new.at - make_interval(secs => %(within)s)
        ),
        false
    )
RETURNING event_id;

-- newest: The newest events that an account may see: those of its federations and of its nodes. Events of the runtime
-- as a whole are for accounts that see all.
SELECT event_id, at, kind, name, details, federation, run_id, node_id
FROM runtime_event
WHERE (%(kinds)s::text[] IS NULL OR kind = ANY (%(kinds)s))
    AND (
        %(federation)s::text IS NULL
        OR federation = %(federation)s
        OR (federation IS NULL AND node_id IN (
            SELECT node_id FROM node_membership WHERE federation = %(federation)s
        ))
    )
    AND (
        %(seen_by)s::text IS NULL
        OR federation IN (SELECT federation FROM federation_member WHERE account_id = %(seen_by)s)
        OR (federation IS NULL AND node_id IN (
            SELECT node_id FROM node WHERE owner_id = %(seen_by)s
            UNION ALL
            SELECT node_id FROM node_membership JOIN federation_member USING (federation)
            WHERE account_id = %(seen_by)s
        ))
    )
ORDER BY at DESC, event_id DESC
LIMIT %(limit)s
OFFSET %(skip)s;

-- trim: Remove events that are too old, or not among the newest ones that are kept.
DELETE FROM runtime_event
WHERE at < now() - make_interval(days => %(days)s::integer)
    OR event_id <= (
        SELECT event_id FROM runtime_event ORDER BY event_id DESC OFFSET %(most)s LIMIT 1
    );
