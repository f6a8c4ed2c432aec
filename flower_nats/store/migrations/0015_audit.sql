-- The audit trail: a chain of events. The hash of each event includes the hash of the event before.

CREATE TABLE audit_event (
    event_id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    account_id text NOT NULL,
    account_name text NOT NULL,
    address text NOT NULL,
    action text NOT NULL,
    object text NOT NULL,
    outcome text NOT NULL,
    request_id text NOT NULL,
    hash bytea NOT NULL
);

CREATE INDEX audit_event_of_request ON audit_event (request_id, action);
CREATE INDEX audit_event_at ON audit_event (at);

CREATE TABLE audit_chain (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    last_id bigint NOT NULL,
    last_hash bytea NOT NULL,
    forgotten_id bigint NOT NULL,
    forgotten_hash bytea NOT NULL
);

INSERT INTO audit_chain (last_id, last_hash, forgotten_id, forgotten_hash) VALUES (0, '', 0, '');

CREATE FUNCTION keep_audit_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('flower_nats.audit_retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'audit events are never changed, and removed by their age alone';
END $$;

CREATE TRIGGER audit_event_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event
FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_events();

CREATE FUNCTION forget_audit_events(days integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    newest record;
    count bigint;
BEGIN
    PERFORM FROM audit_chain FOR UPDATE;
    SELECT event_id, hash INTO newest FROM audit_event
    WHERE at < now() - make_interval(days => days)
    ORDER BY event_id DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM set_config('flower_nats.audit_retention', 'on', true);
    DELETE FROM audit_event WHERE event_id <= newest.event_id;
    GET DIAGNOSTICS count = ROW_COUNT;
    PERFORM set_config('flower_nats.audit_retention', 'off', true);
    UPDATE audit_chain SET forgotten_id = newest.event_id, forgotten_hash = newest.hash;
    RETURN count;
END $$;
