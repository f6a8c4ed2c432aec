-- Events of the runtime, for people. Triggers make events of changes in other tables, once and in
-- the same transaction. Superlinks add other events, such as outages (`store/runtime_events.py`).
-- Old events are removed.
ALTER TABLE replica ADD COLUMN lost_at timestamptz;

CREATE TABLE runtime_event (
    event_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    -- The object of the event, if a second event of the same kind would say nothing new.
    subject text NOT NULL DEFAULT '',
    name text NOT NULL DEFAULT '',
    details text NOT NULL DEFAULT '',
    federation text,
    run_id bigint,
    node_id bigint
);

CREATE INDEX runtime_event_newest ON runtime_event (at, event_id);
CREATE INDEX runtime_event_of_subject ON runtime_event (subject, at) WHERE subject <> '';

CREATE FUNCTION note_run_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runtime_event (kind, name, details, federation, run_id)
    SELECT
        CASE NEW.status WHEN 'finished' THEN 'run_' || NEW.sub_status ELSE 'run_started' END,
        fab_id || ' ' || fab_version, left(NEW.details, 500), federation, run_id
    FROM run WHERE run_id = NEW.run_id AND primary_task_id = NEW.task_id;
    RETURN NULL;
END $$;

CREATE TRIGGER task_changed AFTER UPDATE OF status ON task FOR EACH ROW
WHEN (OLD.status <> NEW.status AND NEW.status IN ('running', 'finished'))
EXECUTE FUNCTION note_run_event();

CREATE FUNCTION note_run_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runtime_event (kind, name, federation, run_id)
    VALUES ('run_deleted', OLD.fab_id || ' ' || OLD.fab_version, OLD.federation, OLD.run_id);
    RETURN NULL;
END $$;

CREATE TRIGGER run_deleted AFTER DELETE ON run FOR EACH ROW EXECUTE FUNCTION note_run_deletion();

-- A node that leaves after its farewell has no deadline; a silent node has missed its deadline.
CREATE FUNCTION note_node_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runtime_event (kind, name, details, node_id)
    VALUES (
        'node_' || NEW.status, coalesce(NEW.name, ''),
        CASE WHEN NEW.status = 'offline' AND NEW.online_until IS NOT NULL
            THEN 'It was not heard any more.' ELSE '' END,
        NEW.node_id
    );
    RETURN NULL;
END $$;

CREATE TRIGGER node_changed AFTER UPDATE OF status ON node FOR EACH ROW
WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION note_node_event();
CREATE TRIGGER node_added AFTER INSERT ON node FOR EACH ROW
WHEN (NEW.registered_by_account) EXECUTE FUNCTION note_node_event();

-- `lost_at` says since when a replica counts as lost. The row of a replica is removed at its
-- farewell.
CREATE FUNCTION note_replica_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    one replica;
    what text;
    why text := '';
BEGIN
    IF TG_OP = 'DELETE' THEN
        one := OLD;
        what := 'replica_drained';
    ELSIF TG_OP = 'INSERT' THEN
        one := NEW;
        what := 'replica_started';
    ELSE
        one := NEW;
        what := CASE WHEN NEW.lost_at IS NULL THEN 'replica_back' ELSE 'replica_lost' END;
        IF OLD.since <> NEW.since THEN
            why := 'Its process had died; this is another one. ';
        END IF;
    END IF;
    INSERT INTO runtime_event (kind, name, details)
    VALUES (
        what,
        -- The ids of superlinks are long, and nobody types them.
        one.kind || ' ' || CASE WHEN one.id ~ '^[0-9a-f]{32}$' THEN left(one.id, 8) ELSE one.id END,
        why || coalesce('On ' || (one.about ->> 'host') || ', process ' || (one.about ->> 'pid') || '.', '')
    );
    RETURN NULL;
END $$;

CREATE TRIGGER replica_added AFTER INSERT ON replica FOR EACH ROW
EXECUTE FUNCTION note_replica_event();
CREATE TRIGGER replica_changed AFTER UPDATE ON replica FOR EACH ROW
WHEN ((OLD.lost_at IS NULL) <> (NEW.lost_at IS NULL) OR OLD.since <> NEW.since)
EXECUTE FUNCTION note_replica_event();
CREATE TRIGGER replica_removed AFTER DELETE ON replica FOR EACH ROW
WHEN (OLD.lost_at IS NULL) EXECUTE FUNCTION note_replica_event();

CREATE FUNCTION note_federation_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runtime_event (kind, name, details, federation)
    VALUES (
        'federation_changed', NEW.name,
        CASE WHEN NEW.archived_at IS NULL THEN 'It was created.' ELSE 'It was archived.' END,
        NEW.name
    );
    RETURN NULL;
END $$;

CREATE TRIGGER federation_added AFTER INSERT ON federation FOR EACH ROW
EXECUTE FUNCTION note_federation_event();
CREATE TRIGGER federation_archived AFTER UPDATE ON federation FOR EACH ROW
WHEN (OLD.archived_at IS NULL AND NEW.archived_at IS NOT NULL)
EXECUTE FUNCTION note_federation_event();

CREATE FUNCTION note_member_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    one federation_member := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO runtime_event (kind, name, details, federation)
    VALUES (
        'federation_changed', one.federation,
        'Account ' || one.account_name || CASE TG_OP
            WHEN 'INSERT' THEN ' has joined as ' || one.role || '.'
            WHEN 'DELETE' THEN ' has left, or was removed.'
            ELSE ' is ' || one.role || ' now.'
        END,
        one.federation
    );
    RETURN NULL;
END $$;

CREATE TRIGGER member_changed AFTER INSERT OR DELETE ON federation_member FOR EACH ROW
EXECUTE FUNCTION note_member_event();
CREATE TRIGGER member_role_changed AFTER UPDATE ON federation_member FOR EACH ROW
WHEN (OLD.role <> NEW.role) EXECUTE FUNCTION note_member_event();

CREATE FUNCTION note_member_node_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    one federation_node := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO runtime_event (kind, name, details, federation, node_id)
    VALUES (
        'federation_changed', one.federation,
        'A SuperNode was ' || CASE TG_OP WHEN 'INSERT' THEN 'added' ELSE 'taken out' END || coalesce(
            (SELECT ': ' || name FROM node WHERE node_id = one.node_id AND name <> ''), ''
        ) || '.',
        one.federation, one.node_id
    );
    RETURN NULL;
END $$;

CREATE TRIGGER federation_node_changed AFTER INSERT OR DELETE ON federation_node FOR EACH ROW
EXECUTE FUNCTION note_member_node_event();

-- For searches in the errors of all runs by time.
CREATE INDEX exchange_failed ON exchange (answered_at) WHERE outcome IN ('failed', 'unanswered');
CREATE INDEX task_failed ON task (finished_at) WHERE sub_status = 'failed';
