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

-- federations: The federations that have an app.
SELECT federation FROM app WHERE app_id = %(app_id)s ORDER BY federation;

-- remove: Take an app out of a federation; its FAB stays, for the runs that have it.
DELETE FROM app WHERE federation = %(federation)s AND app_id = %(app_id)s;
