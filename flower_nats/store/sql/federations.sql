-- get: A federation.
SELECT * FROM federation WHERE name = %(name)s;

-- lock: A federation, locked until the transaction ends.
SELECT * FROM federation WHERE name = %(name)s FOR UPDATE;

-- hold: A federation, which cannot change until the transaction ends.
SELECT * FROM federation WHERE name = %(name)s FOR SHARE;

-- list: The federations of an account, or all, oldest first.
SELECT * FROM federation
WHERE %(account_id)s::text IS NULL
    OR name IN (SELECT federation FROM federation_member WHERE account_id = %(account_id)s)
ORDER BY created_at, name;

-- create: Store a federation; none if its name was ever used.
INSERT INTO federation (name, description, simulation)
VALUES (%(name)s, %(description)s, %(simulation)s)
ON CONFLICT (name) DO NOTHING
RETURNING *;

-- configure: Store the simulation options of a federation.
UPDATE federation SET simulation_config = %(simulation_config)s WHERE name = %(name)s;

-- archive: Archive a federation: it takes no runs, and its open invitations expire.
WITH expired AS (
    UPDATE invitation SET status = 'expired', changed_at = now()
    WHERE federation = %(name)s AND status = 'pending'
)
UPDATE federation SET archived_at = now()
WHERE name = %(name)s AND archived_at IS NULL
RETURNING *;
