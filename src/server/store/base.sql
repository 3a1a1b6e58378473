-- The schema of version 23, as the migrations up to there leave it (`SELECT sql FROM sqlite_schema ORDER BY rowid`):
-- a new database begins with it.
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
, budget_ms INTEGER, unsafe_retries INTEGER NOT NULL DEFAULT 0, takes_untrusted INTEGER NOT NULL DEFAULT 0, is_paused INTEGER NOT NULL DEFAULT 0, wait_limit_ms INTEGER, begin_limit_ms INTEGER) STRICT;
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
    last_used_ms       INTEGER, takes TEXT NOT NULL DEFAULT '["machine"]', is_paused INTEGER NOT NULL DEFAULT 0,
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
    continued_at_ms       INTEGER, pull TEXT, actor_avatar TEXT, is_untrusted INTEGER NOT NULL DEFAULT 0,          -- when a setup pipeline got its second config
    UNIQUE (project_id, number)
) STRICT;
CREATE INDEX pipelines_by_age ON pipelines (created_at_ms);
CREATE INDEX pipelines_by_branch ON pipelines (project_id, branch, number);
CREATE TABLE continuation_keys (
    hash        BLOB PRIMARY KEY,           -- SHA-256
    pipeline_id TEXT NOT NULL REFERENCES pipelines (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
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
    approved_by    TEXT, timings_of TEXT, task_kind TEXT NOT NULL DEFAULT 'machine', cannot_run_status TEXT, cannot_run_message TEXT,
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
    queued_at_ms   INTEGER NOT NULL,
    claimed_at_ms  INTEGER,
    started_at_ms  INTEGER,                 -- first event
    stopped_at_ms  INTEGER,
    message        TEXT, protocol INTEGER, machine_id TEXT, boot_id TEXT, budget_ms INTEGER, begin_until_ms INTEGER, agent TEXT, unreachable_since_ms INTEGER, fence_until_ms INTEGER, ended_by TEXT, is_held INTEGER NOT NULL DEFAULT 0, host_unclaims INTEGER NOT NULL DEFAULT 0, unsafe_retries INTEGER NOT NULL DEFAULT 0, avoid_runner TEXT, avoid_until_ms INTEGER, not_before_ms INTEGER, retries_unsafely INTEGER NOT NULL DEFAULT 0, output_gone_at_ms INTEGER, kind TEXT NOT NULL DEFAULT 'machine',
    UNIQUE (job_id, node_index, attempt)
) STRICT;
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
    output_bytes    INTEGER, output_sha256 TEXT, output_times TEXT,                -- of the whole output, once the step has ended; it may still be coming
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
    created_at_ms INTEGER NOT NULL, used_at_ms INTEGER,
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
, place TEXT) STRICT;
CREATE INDEX test_results_by_job ON test_results (job_id);
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
CREATE TABLE caches (
    id            TEXT PRIMARY KEY,
    project_id    TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    task_id       TEXT NOT NULL,            -- that saved it
    key           TEXT NOT NULL,
    sha256        TEXT NOT NULL,
    length        INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL, used_at_ms INTEGER,
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
CREATE TABLE jobs_with_tests (
        seq        INTEGER PRIMARY KEY,
        project_id TEXT NOT NULL,
        name       TEXT NOT NULL,
        job_id     TEXT NOT NULL UNIQUE REFERENCES jobs (id) ON DELETE CASCADE
    ) STRICT;
CREATE INDEX jobs_with_tests_by_name ON jobs_with_tests (project_id, name, seq);
CREATE INDEX tasks_by_status ON tasks (status, resource_class, seq);
CREATE INDEX tasks_by_nonce ON tasks (nonce) WHERE nonce IS NOT NULL;
CREATE INDEX tasks_fenced ON tasks (fence_until_ms) WHERE fence_until_ms IS NOT NULL;
CREATE TABLE audit_events (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms    INTEGER NOT NULL,
    user_id  TEXT NOT NULL,
    login    TEXT NOT NULL,
    token_id TEXT NOT NULL,
    address  TEXT NOT NULL,
    method   TEXT NOT NULL,
    path     TEXT NOT NULL,
    detail   TEXT NOT NULL,
    status   INTEGER
) STRICT;
CREATE INDEX audit_events_by_time ON audit_events (at_ms);
CREATE INDEX tasks_with_output ON tasks (stopped_at_ms) WHERE stopped_at_ms IS NOT NULL AND output_gone_at_ms IS NULL;
CREATE INDEX artifacts_by_project ON artifacts (project_id, coalesce(used_at_ms, created_at_ms), length);
CREATE INDEX caches_by_project ON caches (project_id, coalesce(used_at_ms, created_at_ms), length);
CREATE INDEX continuation_keys_by_pipeline ON continuation_keys (pipeline_id);
CREATE INDEX test_files_by_job ON test_files (job_id);
CREATE TABLE web_sessions (
    hash          BLOB PRIMARY KEY,
    token_id      TEXT NOT NULL REFERENCES personal_tokens (id) ON DELETE CASCADE,
    created_at_ms INTEGER NOT NULL,
    used_at_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX web_sessions_by_token ON web_sessions (token_id);
CREATE TABLE forge_connections (
    project_id      TEXT PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
    forge           TEXT NOT NULL,           -- github, gitlab, gitea, forgejo, bitbucket_cloud, bitbucket_dc, git
    repository      TEXT,                    -- the id of the repository there; NULL until the first delivery names it
    full_name       TEXT,                    -- the name of the repository there: owner/name
    api_url         TEXT,                    -- base of its API; NULL: nothing is reported
    created_at_ms   INTEGER NOT NULL,
    poll_ms         INTEGER,                 -- between two looks at its refs; NULL: never
    next_poll_ms    INTEGER NOT NULL DEFAULT 0,
    poll_failures   INTEGER NOT NULL DEFAULT 0,
    poll_message    TEXT,                    -- why the last look failed
    is_listed       INTEGER NOT NULL DEFAULT 0, -- the refs have been looked at: what is new from now on is news
    token_message   TEXT                     -- why the token is no longer used; NULL: it is
) STRICT;
CREATE INDEX forge_connections_polled ON forge_connections (next_poll_ms) WHERE poll_ms IS NOT NULL;
CREATE TABLE forge_secrets (
    project_id    TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    sealed        BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (project_id, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE forge_deliveries (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    project_id     TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    delivery       TEXT NOT NULL,            -- the forge's id of it
    source         TEXT NOT NULL,            -- webhook, poll
    event          TEXT NOT NULL,            -- the forge's name of it
    received_at_ms INTEGER NOT NULL,
    verdict        TEXT NOT NULL,            -- accepted, ignored, refused
    sentence       TEXT NOT NULL
, is_strange INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE UNIQUE INDEX forge_deliveries_by_id ON forge_deliveries (project_id, delivery) WHERE verdict <> 'refused';
CREATE INDEX forge_deliveries_by_project ON forge_deliveries (project_id, seq);
CREATE INDEX forge_deliveries_by_age ON forge_deliveries (received_at_ms);
CREATE TABLE forge_events (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery_seq  INTEGER NOT NULL REFERENCES forge_deliveries (seq) ON DELETE CASCADE,
    project_id    TEXT NOT NULL,
    key           TEXT NOT NULL,             -- what has the same key within minutes is the same change
    builds        TEXT,                      -- branch and commit that it would build
    event         TEXT NOT NULL,             -- JSON
    at_ms         INTEGER NOT NULL,
    state         TEXT NOT NULL,             -- waiting, started, skipped, failed
    attempts      INTEGER NOT NULL DEFAULT 0,
    not_before_ms INTEGER NOT NULL,
    sentence      TEXT NOT NULL,
    pipeline_id   TEXT NOT NULL              -- the id that its pipeline gets, if it gets one
) STRICT;
CREATE INDEX forge_events_waiting ON forge_events (not_before_ms) WHERE state = 'waiting';
CREATE INDEX forge_events_by_key ON forge_events (project_id, key, at_ms);
CREATE INDEX forge_events_by_build ON forge_events (project_id, builds, at_ms);
CREATE INDEX forge_events_by_delivery ON forge_events (delivery_seq);
CREATE TABLE forge_refs (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,                -- refs/heads/..., refs/tags/...
    object     TEXT NOT NULL,                -- what it points to: a commit, or the object of a tag
    PRIMARY KEY (project_id, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE forge_pulls (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    branch     TEXT NOT NULL,
    head       TEXT NOT NULL,
    url        TEXT NOT NULL,
    is_fork    INTEGER NOT NULL,
    PRIMARY KEY (project_id, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE forge_changed (
    kind TEXT NOT NULL,                      -- job, pipeline
    id   TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
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
CREATE TABLE branch_schedules (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    branch     TEXT NOT NULL,
    workflow   TEXT NOT NULL,
    cron       TEXT NOT NULL,
    last_ms    INTEGER NOT NULL,
    PRIMARY KEY (project_id, branch, workflow, cron)
) STRICT, WITHOUT ROWID;
CREATE TABLE small_outputs (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    step    INTEGER NOT NULL,               -- number of the record
    bytes   BLOB NOT NULL,
    PRIMARY KEY (task_id, step)
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_by_runner ON tasks (runner_name) WHERE stopped_at_ms IS NULL AND runner_name IS NOT NULL;
CREATE INDEX tasks_by_machine ON tasks (machine_id) WHERE stopped_at_ms IS NULL AND machine_id IS NOT NULL;
CREATE TABLE forge_apps (
    owner_id        TEXT PRIMARY KEY,        -- the one of the two that is set
    project_id      TEXT UNIQUE REFERENCES projects (id) ON DELETE CASCADE,
    organisation_id TEXT UNIQUE REFERENCES organisations (id) ON DELETE CASCADE,
    sealed          BLOB NOT NULL,           -- JSON: its id, an installation, its private key
    created_at_ms   INTEGER NOT NULL,
    CHECK (owner_id = coalesce(project_id, organisation_id) AND (project_id IS NULL) <> (organisation_id IS NULL))
) STRICT, WITHOUT ROWID;
CREATE TRIGGER forge_new_job AFTER INSERT ON jobs
WHEN EXISTS (SELECT 1 FROM forge_told t WHERE t.project_id = NEW.project_id)
BEGIN INSERT INTO forge_changed (kind, id) VALUES ('job', NEW.id) ON CONFLICT DO NOTHING; END;
CREATE TRIGGER forge_changed_job AFTER UPDATE OF status ON jobs
WHEN OLD.status <> NEW.status AND EXISTS (SELECT 1 FROM forge_told t WHERE t.project_id = NEW.project_id)
BEGIN INSERT INTO forge_changed (kind, id) VALUES ('job', NEW.id) ON CONFLICT DO NOTHING; END;
CREATE TRIGGER forge_errored_pipeline AFTER INSERT ON pipelines
WHEN NEW.state = 'errored' AND EXISTS (SELECT 1 FROM forge_told t WHERE t.project_id = NEW.project_id)
BEGIN INSERT INTO forge_changed (kind, id) VALUES ('pipeline', NEW.id) ON CONFLICT DO NOTHING; END;
CREATE INDEX forge_deliveries_refused ON forge_deliveries (project_id, is_strange, seq) WHERE verdict = 'refused';
CREATE TABLE forge_tokens (
    organisation_id TEXT PRIMARY KEY REFERENCES organisations (id) ON DELETE CASCADE,
    forge           TEXT NOT NULL,
    api_url         TEXT NOT NULL,           -- the token is shown there only
    username        TEXT NOT NULL,           -- the name that goes with it where git asks for one
    is_for_jobs     INTEGER NOT NULL,        -- jobs get it for checkout, but for those of forks
    sealed          BLOB NOT NULL,
    updated_at_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE VIEW forge_told AS SELECT c.project_id FROM forge_connections c WHERE c.api_url IS NOT NULL AND (
    EXISTS (SELECT 1 FROM forge_secrets s WHERE s.project_id = c.project_id AND s.name = 'token')
    OR EXISTS (SELECT 1 FROM projects p JOIN forge_tokens t ON t.organisation_id = p.organisation_id
        WHERE p.id = c.project_id AND t.forge = c.forge AND t.api_url = c.api_url)
    OR c.forge = 'github' AND (
        EXISTS (SELECT 1 FROM forge_apps a WHERE a.project_id = c.project_id)
        OR EXISTS (SELECT 1 FROM projects p JOIN forge_apps a ON a.organisation_id = p.organisation_id WHERE p.id = c.project_id)
    )
);
