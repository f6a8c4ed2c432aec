-- Who vouches for an app, by the hash of its FAB: often before the FAB itself is here.
CREATE TABLE fab_signature (
    fab_hash text NOT NULL,
    key_id text NOT NULL,
    verification text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (fab_hash, key_id)
);

ALTER TABLE fab DROP COLUMN verifications;
