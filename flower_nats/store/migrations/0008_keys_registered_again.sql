-- A key that was unregistered may be registered again, as a new node: it is one key of one node that is
-- not unregistered, and of any number that are.
ALTER TABLE node DROP CONSTRAINT node_public_key_key;
CREATE UNIQUE INDEX node_key ON node (public_key) WHERE status <> 'unregistered';
CREATE INDEX node_former_key ON node (public_key) WHERE status = 'unregistered';
