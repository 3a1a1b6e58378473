-- What is kept how long, what was used when, and what a check can compare.

ALTER TABLE steps ADD COLUMN output_sha256 TEXT;        -- of the whole output, as its own agent reported it
ALTER TABLE tasks ADD COLUMN output_gone_at_ms INTEGER; -- its output was too old and was removed
ALTER TABLE caches ADD COLUMN used_at_ms INTEGER;       -- read last; about, and NULL when it never was
ALTER TABLE artifacts ADD COLUMN used_at_ms INTEGER;

CREATE INDEX tasks_with_output ON tasks (stopped_at_ms) WHERE stopped_at_ms IS NOT NULL AND output_gone_at_ms IS NULL;
CREATE INDEX artifacts_by_project ON artifacts (project_id, coalesce(used_at_ms, created_at_ms), length);
CREATE INDEX caches_by_project ON caches (project_id, coalesce(used_at_ms, created_at_ms), length);
-- Without it every pipeline that goes would have all keys read.
CREATE INDEX continuation_keys_by_pipeline ON continuation_keys (pipeline_id);
