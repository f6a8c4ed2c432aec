-- The links of `flwr pull`, with only the hashes of their tokens.
CREATE TABLE download (
    token_hash bytea PRIMARY KEY,
    run_id bigint NOT NULL,
    session_id text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- For housekeeping, which asks for the oldest runs.
CREATE INDEX run_created ON run (created_at);
