-- last: The end of the chain, locked until the transaction ends.
SELECT last_id, last_hash, clock_timestamp() AS at FROM audit_chain FOR UPDATE;

-- append: Add an event.
WITH added AS (
    INSERT INTO audit_event (
        event_id, at, account_id, account_name, address, action, object, outcome, request_id, hash
    )
    VALUES (
        %(event_id)s, %(at)s, %(account_id)s, %(account_name)s, %(address)s, %(action)s,
        %(object)s, %(outcome)s, %(request_id)s, %(hash)s
    )
)
UPDATE audit_chain SET last_id = %(event_id)s, last_hash = %(hash)s;

-- is_known: Whether a request has its event.
SELECT 1 FROM audit_event WHERE request_id = %(request_id)s AND action = %(action)s;

-- list: Events that fit every given filter, after one event, in the order of the chain.
SELECT * FROM audit_event
WHERE event_id > %(after)s
    AND (%(account)s::text IS NULL OR lower(account_name) = lower(%(account)s))
    AND (%(action)s::text IS NULL OR lower(action) = lower(%(action)s))
    AND (%(object)s::text IS NULL OR strpos(object, %(object)s) > 0)
    AND (%(outcome)s::text IS NULL OR lower(outcome) = lower(%(outcome)s))
    AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
ORDER BY event_id
LIMIT %(limit)s;

-- chain: The beginning and the end of the chain.
SELECT last_id, last_hash, forgotten_id, forgotten_hash FROM audit_chain;

-- forget: Remove events by age.
SELECT forget_audit_events(%(days)s::integer) AS count;

-- bound: For how many days events are kept at least.
SELECT least_days FROM audit_bound;

-- set_bound: Set for how many days events are kept at least.
UPDATE audit_bound SET least_days = %(days)s WHERE least_days <> %(days)s;
