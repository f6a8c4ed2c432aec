-- put: Keep the newest FAB of an app of a federation.
INSERT INTO app (
    federation, app_id, fab_hash, app_type, display_name, description, color
)
VALUES (
    %(federation)s, %(app_id)s, %(fab_hash)s, %(app_type)s, %(display_name)s, %(description)s,
    %(color)s
)
ON CONFLICT (federation, app_id) DO UPDATE
SET
    fab_hash = excluded.fab_hash,
    app_type = excluded.app_type,
    display_name = excluded.display_name,
    description = excluded.description,
    color = excluded.color;

-- list: The apps of a federation, newest first.
SELECT app_id, fab_hash, app_type, display_name, description, color
FROM app
WHERE federation = %(federation)s
ORDER BY added_at DESC, app_id DESC
LIMIT %(limit)s;

-- federations: The federations that have an app, of one account or of all.
SELECT federation FROM app
WHERE app_id = %(app_id)s
    AND (
        %(account_id)s::text IS NULL
        OR federation IN (
            SELECT federation FROM federation_member WHERE account_id = %(account_id)s
        )
    )
ORDER BY federation;

-- remove: Remove an app from a federation; its FAB stays for its runs.
DELETE FROM app WHERE federation = %(federation)s AND app_id = %(app_id)s;

-- go_back: Move apps from a FAB that no run uses to the newest FAB of one of their runs.
UPDATE app
SET fab_hash = newest.fab_hash
FROM (
    SELECT DISTINCT ON (federation, fab_id) federation, '@' || fab_id AS app_id, fab_hash
    FROM run
    WHERE (federation, '@' || fab_id) IN (
        SELECT federation, app_id FROM app WHERE fab_hash = %(fab_hash)s
    )
    ORDER BY federation, fab_id, created_at DESC
) AS newest
WHERE app.fab_hash = %(fab_hash)s
    AND app.federation = newest.federation
    AND app.app_id = newest.app_id
    AND NOT EXISTS (SELECT FROM run WHERE run.fab_hash = %(fab_hash)s);

-- drop_unused: Delete apps whose FAB no run has.
DELETE FROM app
WHERE fab_hash = %(fab_hash)s AND NOT EXISTS (SELECT FROM run WHERE run.fab_hash = %(fab_hash)s);
