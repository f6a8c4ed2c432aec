-- Numbers of the MetricRecords of a reply, if the operator records them; and an index of one node's
-- exchanges.
ALTER TABLE exchange ADD COLUMN metrics jsonb;
CREATE INDEX exchange_node ON exchange (node_id, run_id);
