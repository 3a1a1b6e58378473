-- Scheduled pipelines of the API.
CREATE TABLE schedules (
    id            TEXT PRIMARY KEY,
    project_id    TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    description   TEXT NOT NULL,
    timetable     TEXT NOT NULL,             -- JSON
    parameters    TEXT NOT NULL,             -- JSON, with `branch` or `tag`
    actor_id      TEXT REFERENCES users (id) ON DELETE SET NULL, -- NULL: the system
    actor_login   TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    last_ms       INTEGER NOT NULL           -- the last time that counted, whether it ran or was missed
) STRICT;
CREATE INDEX schedules_by_project ON schedules (project_id);

-- Schedules in configs, as they stood at the last pipeline of each branch.
CREATE TABLE branch_schedules (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    branch     TEXT NOT NULL,
    workflow   TEXT NOT NULL,
    cron       TEXT NOT NULL,
    last_ms    INTEGER NOT NULL,
    PRIMARY KEY (project_id, branch, workflow, cron)
) STRICT, WITHOUT ROWID;
