-- How many processes a node has: two for a while, when one takes over from the other.

ALTER TABLE node ADD COLUMN activations integer NOT NULL DEFAULT 1;
