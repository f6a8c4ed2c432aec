-- put: Store a message from a task to an unfinished task of the same run; a repetition changes nothing.
INSERT INTO task_message (message_id, src_task_id, dst_task_id, created_at, expires_at, body)
SELECT
    %(message_id)s, src.task_id, dst.task_id, to_timestamp(%(created_at)s), to_timestamp(%(expires_at)s),
    %(body)s
FROM task AS src JOIN task AS dst USING (run_id)
WHERE src.task_id = %(src_task_id)s
    AND src.run_id = %(run_id)s
    AND dst.task_id = %(dst_task_id)s
    AND dst.status <> 'finished'
ON CONFLICT (message_id) DO UPDATE SET body = excluded.body
WHERE task_message.body = excluded.body
RETURNING message_id;

-- take: Remove and return the messages that wait for a task, oldest first.
WITH next AS (
    SELECT message_id FROM task_message
    WHERE dst_task_id = %(task_id)s AND expires_at > now()
        AND (%(src_task_id)s::bigint IS NULL OR src_task_id = %(src_task_id)s)
    ORDER BY created_at, message_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM task_message USING next WHERE task_message.message_id = next.message_id
    RETURNING task_message.created_at, task_message.message_id, task_message.body
)
SELECT body FROM taken ORDER BY created_at, message_id;

-- drop_expired: Remove expired messages, and those of finished tasks.
DELETE FROM task_message
WHERE expires_at <= now()
    OR dst_task_id IN (SELECT task_id FROM task WHERE status = 'finished');
