-- begin: Store a new series.
INSERT INTO series (series_id, federation, description, context, is_agent)
VALUES (%(series_id)s, %(federation)s, %(description)s, %(context)s, %(is_agent)s);

-- lock: The context of a series of this federation, locked until the transaction ends.
SELECT context FROM series
WHERE series_id = %(series_id)s AND federation = %(federation)s
FOR UPDATE;

-- go_on: Store the context with which the next run of a series starts.
UPDATE series SET context = %(context)s, updated_at = now() WHERE series_id = %(series_id)s;

-- context: The context that the runs of a series share.
SELECT context FROM series WHERE series_id = %(series_id)s;

-- context_size: The size in bytes of a series' context.
SELECT octet_length(context) AS size FROM series WHERE series_id = %(series_id)s;

-- keep_context: Store the context that a primary task has left for its series.
UPDATE series SET context = %(context)s
FROM run
WHERE series.series_id = run.series_id AND run.primary_task_id = %(task_id)s;

-- describe: Set the description of a series.
UPDATE series SET description = %(description)s WHERE series_id = %(series_id)s;

-- of_run: The series of a run.
SELECT series_id FROM run WHERE run_id = %(run_id)s;

-- list: Series with their runs and the state of the newest, last updated first.
SELECT
    series.series_id, series.federation, series.description, series.created_at,
    series.updated_at,
    array(
        SELECT run_id FROM run WHERE run.series_id = series.series_id
        ORDER BY run.created_at, run_id
    ) AS run_ids,
    newest.status AS last_status,
    coalesce(newest.sub_status, '') AS last_sub_status,
    coalesce(newest.details, '') AS last_details
FROM series
LEFT JOIN LATERAL (
    SELECT status, sub_status, details FROM run_state
    WHERE run_state.series_id = series.series_id
    ORDER BY run_state.created_at DESC
    LIMIT 1
) AS newest ON true
WHERE (%(series_id)s::bigint IS NULL OR series.series_id = %(series_id)s)
    AND (%(federation)s::text IS NULL OR series.federation = %(federation)s)
    AND (
        %(account_id)s::text IS NULL
        OR series.federation IN (
            SELECT federation FROM federation_member WHERE account_id = %(account_id)s
        )
    )
    AND (%(is_agent)s::boolean IS NULL OR series.is_agent = %(is_agent)s)
    AND (%(updated_before)s::timestamptz IS NULL OR series.updated_at < %(updated_before)s)
ORDER BY series.updated_at DESC, series.series_id
LIMIT %(limit)s;

-- drop_empty: Delete a series without runs, with the summaries of its events.
WITH empty AS (
    SELECT series_id FROM series
    WHERE series_id = %(series_id)s
        AND NOT EXISTS (SELECT FROM run WHERE run.series_id = %(series_id)s)
), compacted AS (
    DELETE FROM compacted_context WHERE series_id IN (SELECT series_id FROM empty)
)
DELETE FROM series WHERE series_id IN (SELECT series_id FROM empty);
