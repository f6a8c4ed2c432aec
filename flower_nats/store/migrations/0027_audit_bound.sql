-- For how many days events are kept at least, 0 for ever. Only the owner can change it, not
-- superlinks.
CREATE TABLE audit_bound (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    least_days integer NOT NULL CHECK (least_days >= 0)
);

INSERT INTO audit_bound (least_days) VALUES (730);

-- Remove events that are older than the given days and the owner's bound; the chain goes on from
-- the last of them. It stops at the first younger event, so that an event with a forged old time
-- removes none.
CREATE OR REPLACE FUNCTION forget_audit_events(days integer) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    bound integer;
    kept bigint;
    newest record;
    count bigint;
BEGIN
    SELECT least_days INTO bound FROM audit_bound;
    IF bound IS NULL OR bound = 0 THEN
        RETURN 0;
    END IF;
    PERFORM FROM audit_chain FOR UPDATE;
    SELECT event_id INTO kept FROM audit_event
    WHERE at >= now() - make_interval(days => greatest(days, bound))
    ORDER BY event_id LIMIT 1;
    SELECT event_id, hash INTO newest FROM audit_event
    WHERE kept IS NULL OR event_id < kept
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
