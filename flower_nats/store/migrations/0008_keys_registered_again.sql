-- The key of an unregistered node may be registered again, as a new node: a key belongs to at most
-- one registered node, and to any number of unregistered ones.
ALTER TABLE node DROP CONSTRAINT node_public_key_key;
CREATE UNIQUE INDEX node_key ON node (public_key) WHERE status <> 'unregistered';
CREATE INDEX node_former_key ON node (public_key) WHERE status = 'unregistered';
