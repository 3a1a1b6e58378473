-- Version 1. Identifiers are lower-case UUIDs, times are Unix milliseconds, lists and maps are JSON.

CREATE TABLE organisations (
    id            TEXT PRIMARY KEY,
    vcs           TEXT NOT NULL,            -- gh, bb, gl, circleci, ...
    name          TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    UNIQUE (vcs, name)
) STRICT;

CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    login         TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    is_admin      INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE personal_tokens (
    id            TEXT PRIMARY KEY,
    user_id       TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash          BLOB NOT NULL UNIQUE,     -- SHA-256
    label         TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE projects (
    id                   TEXT PRIMARY KEY,
    organisation_id      TEXT NOT NULL REFERENCES organisations (id),
    vcs                  TEXT NOT NULL,
    org                  TEXT NOT NULL,
    repo                 TEXT NOT NULL,
    repository_url       TEXT,
    default_branch       TEXT NOT NULL,
    settings             TEXT NOT NULL,     -- JSON object
    next_pipeline_number INTEGER NOT NULL,
    next_job_number      INTEGER NOT NULL,
    created_at_ms        INTEGER NOT NULL,
    UNIQUE (vcs, org, repo)
) STRICT;

CREATE TABLE project_variables (
    project_id    TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    sealed        BLOB NOT NULL,
    hint          TEXT NOT NULL,            -- what the API shows: xxxx and at most four characters
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (project_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE contexts (
    id              TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    UNIQUE (organisation_id, name)
) STRICT;

CREATE TABLE context_variables (
    context_id    TEXT NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    sealed        BLOB NOT NULL,
    hint          TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    PRIMARY KEY (context_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE context_restrictions (
    id         TEXT PRIMARY KEY,
    context_id TEXT NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL,               -- project, expression, group
    value      TEXT NOT NULL
) STRICT;

CREATE TABLE resource_classes (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,     -- namespace/name
    description   TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE resource_class_tokens (
    id                TEXT PRIMARY KEY,
    resource_class_id TEXT NOT NULL REFERENCES resource_classes (id),
    nickname          TEXT NOT NULL,
    hash              BLOB NOT NULL UNIQUE, -- SHA-256
    created_at_ms     INTEGER NOT NULL
) STRICT;

CREATE TABLE runner_instances (
    resource_class_id  TEXT NOT NULL REFERENCES resource_classes (id) ON DELETE CASCADE,
    name               TEXT NOT NULL,
    hostname           TEXT NOT NULL,
    ip                 TEXT NOT NULL,
    version            TEXT NOT NULL,
    os                 TEXT NOT NULL,
    arch               TEXT NOT NULL,
    first_connected_ms INTEGER NOT NULL,
    last_connected_ms  INTEGER NOT NULL,
    last_used_ms       INTEGER,
    PRIMARY KEY (resource_class_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE pipelines (
    id                    TEXT PRIMARY KEY,
    project_id            TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    number                INTEGER NOT NULL,
    state                 TEXT NOT NULL,
    created_at_ms         INTEGER NOT NULL,
    updated_at_ms         INTEGER NOT NULL,
    trigger_type          TEXT NOT NULL,    -- api, webhook, scheduled_pipeline, explicit
    actor_id              TEXT REFERENCES users (id) ON DELETE SET NULL,
    actor_login           TEXT NOT NULL,
    repository_url        TEXT,
    revision              TEXT,
    branch                TEXT,
    tag                   TEXT,
    reference             TEXT,
    commit_subject        TEXT,
    commit_body           TEXT,
    commit_author         TEXT,
    trigger_parameters    TEXT NOT NULL,    -- JSON object: as given by the trigger
    parameters            TEXT NOT NULL,    -- JSON object: declared ones with the values in force
    pipeline_values       TEXT NOT NULL,    -- JSON object: pipeline.* by full name
    errors                TEXT NOT NULL,    -- JSON [{"type","message"}]
    warnings              TEXT NOT NULL,    -- JSON [text]
    declared              TEXT NOT NULL,    -- JSON {name: config::DeclaredParameter} of the (setup) config
    continued_at_ms       INTEGER,          -- when a setup pipeline got its second config
    UNIQUE (project_id, number)
) STRICT;
CREATE INDEX pipelines_by_age ON pipelines (created_at_ms);
CREATE INDEX pipelines_by_branch ON pipelines (project_id, branch, number);

-- Every claim of a job of a setup workflow hands out a key of its own.
CREATE TABLE continuation_keys (
    hash        BLOB PRIMARY KEY,           -- SHA-256
    pipeline_id TEXT NOT NULL REFERENCES pipelines (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Apart from the pipelines because lists never read it.
CREATE TABLE pipeline_configs (
    pipeline_id     TEXT PRIMARY KEY REFERENCES pipelines (id) ON DELETE CASCADE,
    source          TEXT NOT NULL,
    processed       TEXT NOT NULL,
    setup_source    TEXT,                   -- of the first config when the pipeline was continued
    setup_processed TEXT
) STRICT;

CREATE TABLE workflows (
    id                TEXT PRIMARY KEY,
    pipeline_id       TEXT NOT NULL REFERENCES pipelines (id) ON DELETE CASCADE,
    project_id        TEXT NOT NULL,
    name              TEXT NOT NULL,
    position          INTEGER NOT NULL,     -- order of creation in the pipeline
    status            TEXT NOT NULL,
    is_setup          INTEGER NOT NULL,
    created_at_ms     INTEGER NOT NULL,
    stopped_at_ms     INTEGER,
    started_by        TEXT,                 -- user id
    is_canceled       INTEGER NOT NULL,     -- asked for by somebody
    canceled_by       TEXT,
    error             TEXT,                 -- internal error starting a job
    max_auto_reruns   INTEGER NOT NULL,
    auto_rerun_number INTEGER NOT NULL,     -- 0 for the original and manual reruns
    rerun_of          TEXT,                 -- the workflow this one was made from
    root              TEXT NOT NULL,        -- the first of a chain of reruns; its own id otherwise
    is_manual_rerun   INTEGER NOT NULL,
    workspace_id      TEXT NOT NULL
) STRICT;
CREATE INDEX workflows_by_pipeline ON workflows (pipeline_id, position);
CREATE INDEX workflows_unfinished ON workflows (project_id) WHERE stopped_at_ms IS NULL;

CREATE TABLE jobs (
    id             TEXT PRIMARY KEY,
    workflow_id    TEXT NOT NULL REFERENCES workflows (id) ON DELETE CASCADE,
    pipeline_id    TEXT NOT NULL REFERENCES pipelines (id) ON DELETE CASCADE,
    project_id     TEXT NOT NULL,
    position       INTEGER NOT NULL,        -- order in the workflow
    name           TEXT NOT NULL,
    kind           TEXT NOT NULL,           -- build, approval, no-op, lock, unlock
    definition     TEXT NOT NULL,           -- JSON of config::WorkflowJob
    requires       TEXT NOT NULL,           -- JSON [config::Requirement], apart because the engine reads it often
    serial_group   TEXT,                    -- key that the job takes, holds or gives back
    number         INTEGER,
    status         TEXT NOT NULL,
    resource_class TEXT,                    -- the queue its tasks go to
    parallelism    INTEGER NOT NULL,
    messages       TEXT NOT NULL,           -- JSON [{"type","message"}]
    waits_for_lock INTEGER NOT NULL,        -- queued because of its serial group
    reused_from    TEXT,                    -- in a rerun: the job whose result this one keeps
    created_at_ms  INTEGER NOT NULL,
    queued_at_ms   INTEGER,
    started_at_ms  INTEGER,
    stopped_at_ms  INTEGER,
    canceled_by    TEXT,
    approved_by    TEXT,
    UNIQUE (workflow_id, position)
) STRICT;
CREATE INDEX jobs_by_number ON jobs (project_id, number);
CREATE INDEX jobs_by_pipeline ON jobs (pipeline_id);

CREATE TABLE tasks (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT, -- order in the queue
    id             TEXT NOT NULL UNIQUE,
    job_id         TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    pipeline_id    TEXT NOT NULL,
    project_id     TEXT NOT NULL,
    node_index     INTEGER NOT NULL,
    attempt        INTEGER NOT NULL,        -- from 1
    resource_class TEXT NOT NULL,
    status         TEXT NOT NULL,
    token_hash     BLOB,
    allocation     TEXT,
    nonce          TEXT,
    claimed_with   TEXT,                    -- id of the resource class token
    runner_name    TEXT,
    lease_until_ms INTEGER,
    is_canceled    INTEGER NOT NULL,        -- cancel was asked for
    unclaims       INTEGER NOT NULL,        -- times it went back to the queue, over all attempts
    next_event     INTEGER NOT NULL,
    is_finished    INTEGER NOT NULL,        -- ended by its own runner's finish
    queued_at_ms   INTEGER NOT NULL,
    claimed_at_ms  INTEGER,
    started_at_ms  INTEGER,                 -- first event
    stopped_at_ms  INTEGER,
    message        TEXT,
    UNIQUE (job_id, node_index, attempt)
) STRICT;
CREATE INDEX tasks_queued ON tasks (resource_class, seq) WHERE status = 'queued';
CREATE INDEX tasks_running ON tasks (resource_class) WHERE status = 'running';
CREATE UNIQUE INDEX tasks_by_token ON tasks (token_hash) WHERE token_hash IS NOT NULL;

CREATE TABLE steps (
    task_id         TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    step            INTEGER NOT NULL,       -- number of the record
    step_index      INTEGER,                -- position in the job's steps
    name            TEXT NOT NULL,
    kind            TEXT NOT NULL,
    command         TEXT,
    attempt         INTEGER NOT NULL,
    max_auto_reruns INTEGER NOT NULL,
    background      INTEGER NOT NULL,
    status          TEXT NOT NULL,          -- running or how it ended
    exit_code       INTEGER,
    signal          INTEGER,
    message         TEXT,
    started_at_ms   INTEGER NOT NULL,
    ended_at_ms     INTEGER,
    output_bytes    INTEGER,                -- of the whole output, once the step has ended; it may still be coming
    PRIMARY KEY (task_id, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts (
    id            TEXT PRIMARY KEY,
    job_id        TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    project_id    TEXT NOT NULL,
    task_id       TEXT NOT NULL,
    node_index    INTEGER NOT NULL,
    step          INTEGER NOT NULL,
    path          TEXT NOT NULL,
    sha256        TEXT NOT NULL,
    length        INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    UNIQUE (job_id, node_index, path)
) STRICT;

CREATE TABLE test_files (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    job_id  TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    path    TEXT NOT NULL,
    sha256  TEXT NOT NULL,
    step    INTEGER NOT NULL,
    tests   INTEGER NOT NULL,
    message TEXT,                           -- why the file was ignored
    PRIMARY KEY (task_id, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE test_results (
    id          INTEGER PRIMARY KEY,
    job_id      TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    task_id     TEXT NOT NULL,
    path        TEXT NOT NULL,
    name        TEXT NOT NULL,
    classname   TEXT NOT NULL,
    file        TEXT,
    source      TEXT NOT NULL,
    result      TEXT NOT NULL,              -- success, failure, skipped
    run_time    REAL NOT NULL,
    message     TEXT NOT NULL
) STRICT;
CREATE INDEX test_results_by_job ON test_results (job_id);

-- Who holds or waits for the key of a serial group.
CREATE TABLE serial_claims (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    organisation_id TEXT NOT NULL,
    key             TEXT NOT NULL,
    job_id          TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    workflow_id     TEXT NOT NULL,
    project_id      TEXT NOT NULL,
    pipeline_number INTEGER NOT NULL,
    is_holder       INTEGER NOT NULL,
    since_ms        INTEGER NOT NULL,
    UNIQUE (organisation_id, key, job_id)
) STRICT;
CREATE INDEX serial_claims_by_workflow ON serial_claims (workflow_id);
