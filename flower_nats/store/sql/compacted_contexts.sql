-- put: Store a summary of a series up to an event; none if there is one.
INSERT INTO compacted_context (series_id, through_event_id, text, token_count)
VALUES (%(series_id)s, %(through_event_id)s, %(text)s, %(token_count)s)
ON CONFLICT (series_id, through_event_id) DO NOTHING
RETURNING context_id;

-- list: The summaries of a series, newest first, before the one with this id.
SELECT context_id, series_id, through_event_id, text, token_count, created_at
FROM compacted_context
WHERE series_id = %(series_id)s
    AND (%(before)s::bigint IS NULL OR context_id < %(before)s)
ORDER BY context_id DESC
LIMIT %(limit)s;
