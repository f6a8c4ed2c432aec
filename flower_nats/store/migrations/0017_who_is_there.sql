-- Of each node: its flwr, where it was last heard from, since when it could be heard again after an outage
-- of ours but was not, and since when lists leave it out. Of each task: where its SuperExec has called
-- from. Of each replica: what it says of itself. And when the last outage ended.
ALTER TABLE node ADD COLUMN version text NOT NULL DEFAULT '';
ALTER TABLE node ADD COLUMN address text NOT NULL DEFAULT '';
ALTER TABLE node ADD COLUMN unheard_since timestamptz;
ALTER TABLE node ADD COLUMN unlisted_at timestamptz;
ALTER TABLE task ADD COLUMN taken_from text NOT NULL DEFAULT '';
ALTER TABLE replica ADD COLUMN about jsonb NOT NULL DEFAULT '{}';
ALTER TABLE hearing ADD COLUMN heard_since timestamptz;
