-- The history of exchanges, for the console: when each instruction was released, taken and
-- answered. The broker alone knows the messages in flight; a row here may lack facts that were not
-- noted. It stays as long as the log of its run.
CREATE TABLE exchange (
    run_id bigint NOT NULL REFERENCES run,
    exchange_id bigint NOT NULL,
    node_id bigint,
    session_id bigint NOT NULL,
    message_type text NOT NULL,
    group_id text NOT NULL,
    put_out_at timestamptz,
    taken_at timestamptz,
    answered_at timestamptz,
    outcome text NOT NULL CHECK (outcome IN ('', 'answered', 'failed', 'unanswered')),
    reason text NOT NULL,
    bytes_sent bigint NOT NULL,
    bytes_recv bigint NOT NULL,
    PRIMARY KEY (run_id, exchange_id)
) WITH (fillfactor = 80);
