-- try_lease: Take a lease that is free or over, or prolong one's own.
INSERT INTO lease (name, holder, expires_at)
VALUES (%(name)s, %(holder)s, now() + make_interval(secs => %(seconds)s))
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE lease.holder = excluded.holder OR lease.expires_at < now()
RETURNING name;

-- is_held: A lease that somebody holds.
SELECT name FROM lease WHERE name = %(name)s AND expires_at >= now();

-- release: Give all leases of a holder back.
DELETE FROM lease WHERE holder = %(holder)s;
