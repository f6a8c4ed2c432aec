-- get: A federation.
SELECT * FROM federation WHERE name = %(name)s;

-- lock: A federation, which nobody else changes until the transaction ends.
SELECT * FROM federation WHERE name = %(name)s FOR UPDATE;

-- hold: A federation, which stays as it is until the transaction ends.
SELECT * FROM federation WHERE name = %(name)s FOR SHARE;

-- list: The federations of an account, or all, oldest first.
SELECT * FROM federation
WHERE %(account_id)s::text IS NULL
    OR name IN (SELECT federation FROM federation_member WHERE account_id = %(account_id)s)
ORDER BY created_at, name;

-- create: Store a federation; nothing comes back if its name was ever used.
INSERT INTO federation (name, description, simulation)
VALUES (%(name)s, %(description)s, %(simulation)s)
ON CONFLICT (name) DO NOTHING
RETURNING *;

-- configure: Keep how a federation simulates.
UPDATE federation SET simulation_config = %(simulation_config)s WHERE name = %(name)s;

-- archive: Have a federation take no more runs, and nobody come in any more.
WITH expired AS (
    UPDATE invitation SET status = 'expired', changed_at = now()
    WHERE federation = %(name)s AND status = 'pending'
)
UPDATE federation SET archived_at = now()
WHERE name = %(name)s AND archived_at IS NULL
RETURNING *;
