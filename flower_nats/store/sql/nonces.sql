-- reserve: Reserve a nonce; its holder may repeat this.
INSERT INTO nonce (namespace, nonce, holder, expires_at)
VALUES (%(namespace)s, %(nonce)s, %(holder)s, to_timestamp(%(expires_at)s))
ON CONFLICT (namespace, nonce) DO UPDATE
SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE nonce.holder = excluded.holder OR nonce.expires_at < now()
RETURNING nonce;

-- drop_expired: Remove nonces that no request can use any more.
DELETE FROM nonce WHERE expires_at < now();
