-- get: A federation.
SELECT * FROM federation WHERE name = %(name)s;

-- lock: A federation, which nobody else changes until the transaction ends.
SELECT * FROM federation WHERE name = %(name)s FOR UPDATE;

-- list: All federations, oldest first.
SELECT * FROM federation ORDER BY created_at, name;

-- create: Store a federation; nothing comes back if its name was ever used.
INSERT INTO federation (name, description) VALUES (%(name)s, %(description)s)
ON CONFLICT (name) DO NOTHING
RETURNING *;

-- configure: Keep how a federation simulates.
UPDATE federation SET simulation_config = %(simulation_config)s WHERE name = %(name)s;

-- archive: Have a federation take no more runs.
UPDATE federation SET archived_at = now()
WHERE name = %(name)s AND archived_at IS NULL
RETURNING *;
