-- begin: Store the target of a link.
INSERT INTO download (token_hash, run_id, session_id, expires_at)
VALUES (
    %(token_hash)s, %(run_id)s, %(session_id)s, now() + make_interval(secs => %(seconds)s)
);

-- find: The target of a valid link.
SELECT run_id, session_id FROM download
WHERE token_hash = %(token_hash)s AND expires_at > now();

-- drop_expired: Remove expired links.
DELETE FROM download WHERE expires_at < now();
