-- Statuses of commits on the way to forges. Triggers note what has changed in the very transaction that changes it, whoever
-- does; what is sent is made of the rows as they are then, so that what has been overtaken is never sent.
CREATE TABLE forge_changed (
    kind TEXT NOT NULL,                      -- job, pipeline
    id   TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER forge_new_job AFTER INSERT ON jobs
WHEN EXISTS (SELECT 1 FROM forge_connections c WHERE c.project_id = NEW.project_id AND c.api_url IS NOT NULL)
    AND EXISTS (SELECT 1 FROM forge_secrets s WHERE s.project_id = NEW.project_id AND s.name = 'token')
BEGIN INSERT INTO forge_changed (kind, id) VALUES ('job', NEW.id) ON CONFLICT DO NOTHING; END;

CREATE TRIGGER forge_changed_job AFTER UPDATE OF status ON jobs
WHEN OLD.status <> NEW.status
    AND EXISTS (SELECT 1 FROM forge_connections c WHERE c.project_id = NEW.project_id AND c.api_url IS NOT NULL)
    AND EXISTS (SELECT 1 FROM forge_secrets s WHERE s.project_id = NEW.project_id AND s.name = 'token')
BEGIN INSERT INTO forge_changed (kind, id) VALUES ('job', NEW.id) ON CONFLICT DO NOTHING; END;

CREATE TRIGGER forge_errored_pipeline AFTER INSERT ON pipelines
WHEN NEW.state = 'errored'
    AND EXISTS (SELECT 1 FROM forge_connections c WHERE c.project_id = NEW.project_id AND c.api_url IS NOT NULL)
    AND EXISTS (SELECT 1 FROM forge_secrets s WHERE s.project_id = NEW.project_id AND s.name = 'token')
BEGIN INSERT INTO forge_changed (kind, id) VALUES ('pipeline', NEW.id) ON CONFLICT DO NOTHING; END;

CREATE TABLE forge_reports (
    project_id    TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    revision      TEXT NOT NULL,
    context       TEXT NOT NULL,
    reference     TEXT NOT NULL,             -- branch or tag
    state         TEXT NOT NULL,             -- the wanted state, in our words
    description   TEXT NOT NULL,
    url           TEXT NOT NULL,
    sent_word     TEXT,                      -- the forge's word that it was told last; NULL: none
    sent_text     TEXT,
    is_due        INTEGER NOT NULL,          -- the forge is to be told
    attempts      INTEGER NOT NULL DEFAULT 0,
    since_ms      INTEGER NOT NULL,          -- since when it is to be told
    not_before_ms INTEGER NOT NULL,
    message       TEXT,                      -- why it could not be told
    PRIMARY KEY (project_id, revision, context)
) STRICT, WITHOUT ROWID;
CREATE INDEX forge_reports_due ON forge_reports (not_before_ms) WHERE is_due = 1;
CREATE INDEX forge_reports_by_age ON forge_reports (since_ms);
