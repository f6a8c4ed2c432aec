-- Signatures of apps, by the hash of the FAB, which is often submitted later.
CREATE TABLE fab_signature (
    fab_hash text NOT NULL,
    key_id text NOT NULL,
    verification text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (fab_hash, key_id)
);

ALTER TABLE fab DROP COLUMN verifications;
