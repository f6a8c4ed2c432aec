-- list: Every webhook, with its waiting events.
SELECT webhook_id, url, kinds, federation, created_at, created_by, delivered_at, (
    SELECT count(*) FROM webhook_delivery AS delivery
    WHERE delivery.webhook_id = webhook.webhook_id AND next_at IS NOT NULL
) AS waiting
FROM webhook ORDER BY webhook_id;

-- lock: Let one transaction at a time add a webhook.
SELECT pg_advisory_xact_lock(hashtextextended('webhook', 0));

-- count: The number of webhooks.
SELECT count(*) AS count FROM webhook;

-- add: Store a webhook.
INSERT INTO webhook (url, secret, kinds, federation, created_by)
VALUES (%(url)s, %(secret)s, %(kinds)s, %(federation)s, %(created_by)s)
RETURNING webhook_id;

-- remove: Remove a webhook and its waiting events.
DELETE FROM webhook WHERE webhook_id = %(webhook_id)s;

-- try: Make an event for one webhook, to see that it arrives.
WITH target AS (
    SELECT webhook_id FROM webhook WHERE webhook_id = %(webhook_id)s
), event AS (
    INSERT INTO runtime_event (kind, details)
    SELECT 'webhook_tested', %(details)s FROM target
    RETURNING event_id
)
INSERT INTO webhook_delivery (webhook_id, event_id)
SELECT webhook_id, event_id FROM target, event;

-- claim: Take due deliveries, some of each webhook; if their sender dies, they are tried again.
WITH due AS (
    SELECT webhook_id, event_id,
        row_number() OVER (PARTITION BY webhook_id ORDER BY next_at, event_id) AS place
    FROM webhook_delivery WHERE next_at <= now()
), chosen AS (
    SELECT delivery.webhook_id, delivery.event_id
    FROM webhook_delivery AS delivery
    JOIN due USING (webhook_id, event_id)
    WHERE place <= %(of_each)s AND next_at <= now()
    LIMIT %(limit)s
    FOR UPDATE OF delivery SKIP LOCKED
), claimed AS (
    UPDATE webhook_delivery AS delivery
    SET
        tries = tries + 1,
        next_at = now() + make_interval(
            secs => least(%(pause)s * power(2, least(tries, 30)), %(longest_pause)s)
        )
    FROM chosen
    WHERE delivery.webhook_id = chosen.webhook_id AND delivery.event_id = chosen.event_id
    RETURNING delivery.webhook_id, delivery.event_id
)
SELECT
    webhook_id, url, secret,
    event_id, at, kind, name, details, runtime_event.federation, run_id, node_id
FROM claimed
JOIN webhook USING (webhook_id)
JOIN runtime_event USING (event_id)
ORDER BY event_id;

-- delivered: Note that an event has arrived.
WITH gone AS (
    DELETE FROM webhook_delivery
    WHERE webhook_id = %(webhook_id)s AND event_id = %(event_id)s
)
UPDATE webhook SET delivered_at = now() WHERE webhook_id = %(webhook_id)s;

-- failed: Note why an event has not arrived; after a time limit it is given up.
UPDATE webhook_delivery
SET
    error = %(error)s,
    next_at = CASE
        WHEN created_at > now() - make_interval(secs => %(give_up)s) THEN next_at
    END
WHERE webhook_id = %(webhook_id)s AND event_id = %(event_id)s;

-- troubled: Failed deliveries, the newest first: those that were given up, and those that will be tried again.
SELECT
    webhook_id, url, tries, next_at, error,
    event_id, at, kind, name, details, runtime_event.federation, run_id, node_id
FROM webhook_delivery
JOIN webhook USING (webhook_id)
JOIN runtime_event USING (event_id)
WHERE tries > 0 AND error <> ''
ORDER BY event_id DESC
LIMIT %(limit)s;
