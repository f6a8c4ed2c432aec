-- try_lease: Take a free or expired lease, or prolong one's own.
INSERT INTO lease (name, holder, expires_at)
VALUES (%(name)s, %(holder)s, now() + make_interval(secs => %(seconds)s))
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE lease.holder = excluded.holder OR lease.expires_at < now()
RETURNING name;

-- is_held: A lease that is held.
SELECT name FROM lease WHERE name = %(name)s AND expires_at >= now();

-- release: Release all leases of a holder.
DELETE FROM lease WHERE holder = %(holder)s;
