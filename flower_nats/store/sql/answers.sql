-- open: Begin to answer a request; none if it is already answered.
INSERT INTO answer (request_id) VALUES (%(request_id)s)
ON CONFLICT (request_id) DO NOTHING
RETURNING request_id;

-- close: Store the answer, in the transaction that carries the request out.
UPDATE answer SET response = %(response)s WHERE request_id = %(request_id)s;

-- get: The answer that was given to a request.
SELECT response FROM answer WHERE request_id = %(request_id)s;

-- drop_old: Remove answers that no gateway can ask for again.
DELETE FROM answer WHERE created_at < now() - make_interval(secs => %(seconds)s);
