-- Claimed is not begun: what a runner holds, for how long, and who ended it.

ALTER TABLE tasks ADD COLUMN protocol INTEGER;              -- version of the claimer
ALTER TABLE tasks ADD COLUMN machine_id TEXT;               -- of the claimer
ALTER TABLE tasks ADD COLUMN boot_id TEXT;
ALTER TABLE tasks ADD COLUMN budget_ms INTEGER;             -- copied from the class at the claim
ALTER TABLE tasks ADD COLUMN begin_until_ms INTEGER;        -- set while it is claimed
ALTER TABLE tasks ADD COLUMN agent TEXT;                    -- that has begun
ALTER TABLE tasks ADD COLUMN unreachable_since_ms INTEGER;  -- set while it is unreachable
ALTER TABLE tasks ADD COLUMN fence_until_ms INTEGER;        -- set while nothing may take its place
ALTER TABLE tasks ADD COLUMN ended_by TEXT;                 -- set once it has ended
ALTER TABLE tasks ADD COLUMN is_held INTEGER NOT NULL DEFAULT 0;        -- until an administrator decides
ALTER TABLE tasks ADD COLUMN host_unclaims INTEGER NOT NULL DEFAULT 0;  -- as unclaims, because a host could not work
ALTER TABLE tasks ADD COLUMN unsafe_retries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN avoid_runner TEXT;             -- gave the attempt before back
ALTER TABLE tasks ADD COLUMN avoid_until_ms INTEGER;
ALTER TABLE tasks ADD COLUMN not_before_ms INTEGER;         -- the fence of the attempt before

-- The first event was the begin, and a task that was claimed was running.
UPDATE tasks SET protocol = 1, budget_ms = 900000 WHERE claimed_at_ms IS NOT NULL;
UPDATE tasks SET status = 'claimed', begin_until_ms = claimed_at_ms + 600000
    WHERE status = 'running' AND started_at_ms IS NULL;
UPDATE tasks SET ended_by = CASE WHEN is_finished THEN 'finish' WHEN status = 'canceled' THEN 'cancel'
    WHEN status = 'retried' THEN 'given_back' WHEN claimed_at_ms IS NULL THEN 'hand_out' ELSE 'lost' END
    WHERE stopped_at_ms IS NOT NULL;
ALTER TABLE tasks DROP COLUMN is_finished;

DROP INDEX tasks_queued;
DROP INDEX tasks_running;
-- Whole indexes, since statements are given the words of a status as parameters.
CREATE INDEX tasks_by_status ON tasks (status, resource_class, seq);
CREATE INDEX tasks_by_nonce ON tasks (nonce) WHERE nonce IS NOT NULL;
CREATE INDEX tasks_fenced ON tasks (fence_until_ms) WHERE fence_until_ms IS NOT NULL;

ALTER TABLE resource_classes ADD COLUMN budget_ms INTEGER;  -- how long a task may be silent; NULL: as usual
ALTER TABLE runner_instances ADD COLUMN takes TEXT NOT NULL DEFAULT '["machine"]';  -- JSON [protocol::TaskKind]
