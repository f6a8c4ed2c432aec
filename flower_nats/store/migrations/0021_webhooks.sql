-- Webhooks, and their waiting deliveries. `secret` signs a delivery.
CREATE TABLE webhook (
    webhook_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    url text NOT NULL,
    secret text NOT NULL,
    kinds text[] NOT NULL,
    federation text,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    delivered_at timestamptz
);

-- A delivery that has succeeded has no row. `next_at` is NULL for a delivery that was given up.
CREATE TABLE webhook_delivery (
    webhook_id bigint NOT NULL REFERENCES webhook ON DELETE CASCADE,
    event_id bigint NOT NULL REFERENCES runtime_event ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    tries integer NOT NULL DEFAULT 0,
    next_at timestamptz DEFAULT now(),
    error text NOT NULL DEFAULT '',
    PRIMARY KEY (webhook_id, event_id)
);

CREATE INDEX webhook_delivery_due ON webhook_delivery (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX webhook_delivery_of_event ON webhook_delivery (event_id);

CREATE FUNCTION plan_deliveries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_delivery (webhook_id, event_id)
    SELECT webhook_id, NEW.event_id FROM webhook
    WHERE NEW.kind = ANY (kinds)
        AND (
            federation IS NULL
            OR federation = NEW.federation
            OR (NEW.federation IS NULL AND EXISTS (
                SELECT FROM node_membership
                WHERE node_id = NEW.node_id AND node_membership.federation = webhook.federation
            ))
        );
    RETURN NULL;
END $$;

CREATE TRIGGER runtime_event_added AFTER INSERT ON runtime_event FOR EACH ROW
EXECUTE FUNCTION plan_deliveries();
