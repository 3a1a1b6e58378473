-- GitHub Apps by which projects, or all projects of organisations, get in at GitHub.
CREATE TABLE forge_apps (
    owner_id        TEXT PRIMARY KEY,        -- the one of the two that is set
    project_id      TEXT UNIQUE REFERENCES projects (id) ON DELETE CASCADE,
    organisation_id TEXT UNIQUE REFERENCES organisations (id) ON DELETE CASCADE,
    sealed          BLOB NOT NULL,           -- JSON: its id, an installation, its private key
    created_at_ms   INTEGER NOT NULL,
    CHECK (owner_id = coalesce(project_id, organisation_id) AND (project_id IS NULL) <> (organisation_id IS NULL))
) STRICT, WITHOUT ROWID;

-- Projects whose forge is told how it goes: by a token of their own, or by an App.
CREATE VIEW forge_told AS SELECT c.project_id FROM forge_connections c WHERE c.api_url IS NOT NULL AND (
    EXISTS (SELECT 1 FROM forge_secrets s WHERE s.project_id = c.project_id AND s.name = 'token')
    OR c.forge = 'github' AND (
        EXISTS (SELECT 1 FROM forge_apps a WHERE a.project_id = c.project_id)
        OR EXISTS (SELECT 1 FROM projects p JOIN forge_apps a ON a.organisation_id = p.organisation_id WHERE p.id = c.project_id)
    )
);

DROP TRIGGER forge_new_job;
DROP TRIGGER forge_changed_job;
DROP TRIGGER forge_errored_pipeline;

CREATE TRIGGER forge_new_job AFTER INSERT ON jobs
WHEN EXISTS (SELECT 1 FROM forge_told t WHERE t.project_id = NEW.project_id)
BEGIN INSERT INTO forge_changed (kind, id) VALUES ('job', NEW.id) ON CONFLICT DO NOTHING; END;

CREATE TRIGGER forge_changed_job AFTER UPDATE OF status ON jobs
WHEN OLD.status <> NEW.status AND EXISTS (SELECT 1 FROM forge_told t WHERE t.project_id = NEW.project_id)
BEGIN INSERT INTO forge_changed (kind, id) VALUES ('job', NEW.id) ON CONFLICT DO NOTHING; END;

CREATE TRIGGER forge_errored_pipeline AFTER INSERT ON pipelines
WHEN NEW.state = 'errored' AND EXISTS (SELECT 1 FROM forge_told t WHERE t.project_id = NEW.project_id)
BEGIN INSERT INTO forge_changed (kind, id) VALUES ('pipeline', NEW.id) ON CONFLICT DO NOTHING; END;
