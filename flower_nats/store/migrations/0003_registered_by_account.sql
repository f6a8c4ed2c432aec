-- Whether an account or the node itself has registered a node's key. For existing nodes this is
-- unknown: `flwr supernode register` sets it again.

ALTER TABLE node ADD COLUMN registered_by_account boolean NOT NULL DEFAULT false;
