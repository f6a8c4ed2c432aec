-- For flwr 1.34 to 1.42: names and locations of nodes, apps of a federation, series of agents with
-- their summaries, and prompts of agents.

ALTER TABLE node ADD COLUMN name text;
ALTER TABLE node ADD COLUMN location text;

ALTER TABLE series ADD COLUMN is_agent boolean NOT NULL DEFAULT false;

UPDATE series SET is_agent = true
WHERE EXISTS (
    SELECT FROM run JOIN task ON task.task_id = run.primary_task_id
    WHERE run.series_id = series.series_id AND task.type = 'flwr-agentapp'
);

ALTER TABLE run ADD COLUMN user_prompt text NOT NULL DEFAULT '';

-- 0: a message from before this.
ALTER TABLE task_message ADD COLUMN src_task_id bigint NOT NULL DEFAULT 0;

CREATE TABLE app (
    federation text NOT NULL,
    app_id text NOT NULL,
    fab_hash text NOT NULL REFERENCES fab,
    app_type text NOT NULL,
    display_name text NOT NULL,
    description text NOT NULL,
    color text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (federation, app_id)
);

CREATE TABLE compacted_context (
    context_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    series_id bigint NOT NULL REFERENCES series,
    through_event_id bigint NOT NULL,
    text text NOT NULL,
    token_count bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (series_id, through_event_id)
);

-- Whether the silence of who was last heard through a gateway proves anything just now: not while no
-- heartbeat of anybody could be heard, nor while that gateway itself is silent and may come back.
CREATE FUNCTION silence_counts(
    heard_by text, deaf_after double precision, absence double precision
) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT (SELECT heard_at FROM hearing) > now() - make_interval(secs => deaf_after)
        AND NOT EXISTS (
            SELECT FROM replica
            WHERE kind = 'gateway' AND id = heard_by
                AND seen_at < now() - make_interval(secs => deaf_after)
                AND seen_at > now() - make_interval(secs => absence)
        )
$$;
