-- Of each node: how far its clock is ahead of ours, since when it has its key, and when it came and went.
ALTER TABLE node ADD COLUMN clock_ahead double precision;
ALTER TABLE node ADD COLUMN key_since timestamptz NOT NULL DEFAULT now();
UPDATE node SET key_since = registered_at;

CREATE TABLE node_presence (
    node_id bigint NOT NULL REFERENCES node ON DELETE CASCADE,
    at timestamptz NOT NULL,
    status text NOT NULL,
    PRIMARY KEY (node_id, at)
);

-- Notes that a node has come or gone, for any reason. The newest 200 notes are kept.
CREATE FUNCTION note_presence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO node_presence (node_id, at, status)
    VALUES (
        NEW.node_id,
        CASE NEW.status
            WHEN 'online' THEN coalesce(NEW.last_activated_at, now())
            WHEN 'offline' THEN coalesce(NEW.last_deactivated_at, now())
            ELSE now()
        END,
        NEW.status
    )
    ON CONFLICT (node_id, at) DO UPDATE SET status = excluded.status;
    DELETE FROM node_presence
    WHERE node_id = NEW.node_id AND at <= (
        SELECT at FROM node_presence WHERE node_id = NEW.node_id
        ORDER BY at DESC OFFSET 200 LIMIT 1
    );
    RETURN NULL;
END
$$;

CREATE TRIGGER node_presence_noted AFTER UPDATE OF status ON node
FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION note_presence();
