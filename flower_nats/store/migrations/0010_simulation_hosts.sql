-- How many simulations the host of a SuperExec runs at a time, and which host has taken a task.

ALTER TABLE replica ADD COLUMN simulations integer;
ALTER TABLE task ADD COLUMN taken_by text;
