-- Whether an account has registered a node's key, or the node itself has. Of the nodes that are there
-- nobody can tell any more: `flwr supernode register` says it again.

ALTER TABLE node ADD COLUMN registered_by_account boolean NOT NULL DEFAULT false;
