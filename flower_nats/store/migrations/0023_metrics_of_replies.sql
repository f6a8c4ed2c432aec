-- Numbers of the MetricRecords of a reply, where the operator has them recorded; and a way to the exchanges
-- of one node.
ALTER TABLE exchange ADD COLUMN metrics jsonb;
CREATE INDEX exchange_node ON exchange (node_id, run_id);
