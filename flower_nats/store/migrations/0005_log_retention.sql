-- When housekeeping has removed a run's log, because the run ended long ago.

ALTER TABLE run ADD COLUMN log_removed_at timestamptz;

CREATE INDEX run_with_log ON run (created_at) WHERE log_removed_at IS NULL;
