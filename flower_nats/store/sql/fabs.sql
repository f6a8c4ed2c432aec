-- put: Store a FAB under its hash; a known one is left as it is.
INSERT INTO fab (fab_hash, content)
VALUES (%(fab_hash)s, %(content)s)
ON CONFLICT (fab_hash) DO NOTHING;

-- get: The content and the verifications of a FAB.
SELECT content, verifications FROM fab WHERE fab_hash = %(fab_hash)s;
