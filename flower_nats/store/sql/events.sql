-- add: Store events of a task; ids rise in the order in which readers can see them.
WITH locked AS (
    -- Ids are drawn under the run's lock: no event becomes visible after a later one.
    SELECT run_id FROM run WHERE run_id = %(run_id)s FOR NO KEY UPDATE
)
INSERT INTO task_event (run_id, task_id, event, data)
SELECT locked.run_id, %(task_id)s, new.event, new.data
FROM locked, unnest(%(events)s::text[], %(data)s::text[]) WITH ORDINALITY
    AS new (event, data, position)
ORDER BY new.position;

-- after: Events of a run after the one with this id, oldest first; if wanted, only of the primary task.
SELECT event_id, run_id, task_id, created_at, event, data
FROM task_event
WHERE run_id = %(run_id)s AND event_id > %(after)s
    AND (
        NOT %(primary_only)s
        OR task_id = (SELECT primary_task_id FROM run WHERE run_id = %(run_id)s)
    )
ORDER BY event_id
LIMIT %(limit)s;

-- of_series: Events of the primary tasks of a series' runs, oldest first; if wanted, only the last few.
SELECT * FROM (
    SELECT event_id, run_id, task_id, task_event.created_at, event, data
    FROM task_event
    JOIN run USING (run_id)
    WHERE run.series_id = %(series_id)s
        AND task_event.task_id = run.primary_task_id
        AND event_id > %(after)s
        AND (%(before)s::bigint IS NULL OR event_id < %(before)s)
        AND (%(names)s::text[] IS NULL OR event = ANY (%(names)s::text[]))
    ORDER BY event_id DESC
    LIMIT %(last)s
) AS last
ORDER BY event_id;
