-- Webhooks that tell others of ended workflows and jobs.
CREATE TABLE webhooks (
    id            TEXT PRIMARY KEY,
    project_id    TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    url           TEXT NOT NULL,
    events        TEXT NOT NULL,             -- JSON list
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX webhooks_by_project ON webhooks (project_id);

-- What is sent, and what was: the last of it is the log.
CREATE TABLE webhook_calls (
    id            TEXT PRIMARY KEY,
    webhook_id    TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event         TEXT NOT NULL,             -- workflow-completed, job-completed
    subject       TEXT NOT NULL,             -- id of the workflow or the job
    at_ms         INTEGER NOT NULL,
    body          TEXT,                      -- made at the first try, and the same at every other
    state         TEXT NOT NULL,             -- waiting, done, failed
    attempts      INTEGER NOT NULL DEFAULT 0,
    not_before_ms INTEGER NOT NULL,
    message       TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX webhook_calls_waiting ON webhook_calls (not_before_ms) WHERE state = 'waiting';
CREATE INDEX webhook_calls_by_hook ON webhook_calls (webhook_id, at_ms);

-- In the transaction that ends it, whoever does.
CREATE TRIGGER webhook_of_workflow AFTER UPDATE OF stopped_at_ms ON workflows
WHEN OLD.stopped_at_ms IS NULL AND NEW.stopped_at_ms IS NOT NULL
    AND NEW.status IN ('success', 'failed', 'error', 'canceled', 'unauthorized')
BEGIN
    INSERT INTO webhook_calls (id, webhook_id, event, subject, at_ms, state, not_before_ms)
    SELECT lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a'
            || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))),
        h.id, 'workflow-completed', NEW.id, NEW.stopped_at_ms, 'waiting', NEW.stopped_at_ms
    FROM webhooks h WHERE h.project_id = NEW.project_id AND h.events LIKE '%"workflow-completed"%';
END;

CREATE TRIGGER webhook_of_job AFTER UPDATE OF stopped_at_ms ON jobs
WHEN OLD.stopped_at_ms IS NULL AND NEW.stopped_at_ms IS NOT NULL AND NEW.kind = 'build'
    AND NEW.status NOT IN ('not_run')
BEGIN
    INSERT INTO webhook_calls (id, webhook_id, event, subject, at_ms, state, not_before_ms)
    SELECT lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a'
            || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))),
        h.id, 'job-completed', NEW.id, NEW.stopped_at_ms, 'waiting', NEW.stopped_at_ms
    FROM webhooks h WHERE h.project_id = NEW.project_id AND h.events LIKE '%"job-completed"%';
END;
