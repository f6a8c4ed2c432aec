-- put: Store a FAB under its hash; a known one is left as it is.
INSERT INTO fab (fab_hash, content)
VALUES (%(fab_hash)s, %(content)s)
ON CONFLICT (fab_hash) DO NOTHING;

-- get: The content and the verifications of a FAB.
SELECT content, verifications FROM fab WHERE fab_hash = %(fab_hash)s;

-- drop_unused: Delete a FAB that no run and no app has.
DELETE FROM fab
WHERE fab_hash = %(fab_hash)s
    AND NOT EXISTS (SELECT FROM run WHERE run.fab_hash = %(fab_hash)s)
    AND NOT EXISTS (SELECT FROM app WHERE app.fab_hash = %(fab_hash)s);
