-- What `flwr pull` was given a link to. Of the token in the link only the hash is kept.
CREATE TABLE download (
    token_hash bytea PRIMARY KEY,
    run_id bigint NOT NULL,
    session_id text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Housekeeping asks for the oldest runs.
CREATE INDEX run_created ON run (created_at);
