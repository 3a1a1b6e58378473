-- Caches, workspace layers, and finding out whether anything still names an upload.

CREATE TABLE caches (
    id            TEXT PRIMARY KEY,
    project_id    TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    task_id       TEXT NOT NULL,            -- that saved it
    key           TEXT NOT NULL,
    sha256        TEXT NOT NULL,
    length        INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    UNIQUE (project_id, key)
) STRICT;
CREATE INDEX caches_by_content ON caches (sha256);

CREATE TABLE workspace_layers (
    id            TEXT PRIMARY KEY,
    job_id        TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    task_id       TEXT NOT NULL,
    step          INTEGER NOT NULL,         -- number of the record
    sha256        TEXT NOT NULL,
    length        INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    UNIQUE (task_id, step)
) STRICT;
CREATE INDEX workspace_layers_by_job ON workspace_layers (job_id);
CREATE INDEX workspace_layers_by_content ON workspace_layers (sha256);

CREATE INDEX artifacts_by_content ON artifacts (sha256);
CREATE INDEX artifacts_by_age ON artifacts (created_at_ms);
CREATE INDEX test_files_by_content ON test_files (sha256);
