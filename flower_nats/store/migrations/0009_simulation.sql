-- Simulation: federations that users create for it, how each simulates, and how each run does.

CREATE TABLE federation (
    name text PRIMARY KEY,
    description text NOT NULL,
    simulation_config bytea NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    archived_at timestamptz
);

INSERT INTO federation (name, description)
VALUES ('@none/default', 'The federation of everything that connects to this SuperLink.');

ALTER TABLE run ADD COLUMN simulation_config bytea;
