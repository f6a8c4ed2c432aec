-- put: Store a FAB under its hash; a known one is left as it is.
INSERT INTO fab (fab_hash, content)
VALUES (%(fab_hash)s, %(content)s)
ON CONFLICT (fab_hash) DO NOTHING;

-- drop_unused: Delete a FAB that no run and no app uses.
DELETE FROM fab
WHERE fab_hash = %(fab_hash)s
    AND NOT EXISTS (SELECT FROM run WHERE run.fab_hash = %(fab_hash)s)
    AND NOT EXISTS (SELECT FROM app WHERE app.fab_hash = %(fab_hash)s);

-- get: The content of a FAB and its verifications.
SELECT
    content,
    (
        SELECT coalesce(jsonb_object_agg(key_id, verification), '{}')
        FROM fab_signature
        WHERE fab_signature.fab_hash = fab.fab_hash
    ) AS verifications
FROM fab
WHERE fab_hash = %(fab_hash)s;

-- is_of: Whether a run or an app of a federation uses a FAB.
SELECT 1
WHERE EXISTS (SELECT FROM app WHERE federation = %(federation)s AND fab_hash = %(fab_hash)s)
    OR EXISTS (SELECT FROM run WHERE federation = %(federation)s AND fab_hash = %(fab_hash)s);

-- sign: Store a signature of a FAB, which may be submitted later; the last signature counts.
INSERT INTO fab_signature (fab_hash, key_id, verification)
VALUES (%(fab_hash)s, %(key_id)s, %(verification)s)
ON CONFLICT (fab_hash, key_id) DO UPDATE
SET verification = excluded.verification, added_at = now();
