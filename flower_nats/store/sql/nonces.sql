-- reserve: Reserve a nonce; the request that has reserved it may ask again.
INSERT INTO nonce (namespace, nonce, request_id, expires_at)
VALUES (%(namespace)s, %(nonce)s, %(request_id)s, to_timestamp(%(expires_at)s))
ON CONFLICT (namespace, nonce) DO UPDATE
SET request_id = excluded.request_id, expires_at = excluded.expires_at
WHERE nonce.request_id = nullif(excluded.request_id, '') OR nonce.expires_at < now()
RETURNING nonce;

-- drop_expired: Remove nonces that no request can use any more.
DELETE FROM nonce WHERE expires_at < now();
