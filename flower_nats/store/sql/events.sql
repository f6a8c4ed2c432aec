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

-- after: Events of a run after the one with this id, oldest first.
SELECT event_id, run_id, task_id, created_at, event, data
FROM task_event
WHERE run_id = %(run_id)s AND event_id > %(after)s
ORDER BY event_id
LIMIT %(limit)s;
