-- The gateway through which a node or task was last heard: while it is stopped, silence proves
-- nothing.

ALTER TABLE node ADD COLUMN heard_by text;
ALTER TABLE task ADD COLUMN heard_by text;
