-- How a project is connected to its forge.
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

-- Secrets of projects that are no variables: of hooks, tokens, keys.
CREATE TABLE forge_secrets (
    project_id    TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    sealed        BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (project_id, name)
) STRICT, WITHOUT ROWID;

-- What forges sent, and what was found by looking.
CREATE TABLE forge_deliveries (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    project_id     TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    delivery       TEXT NOT NULL,            -- the forge's id of it
    source         TEXT NOT NULL,            -- webhook, poll
    event          TEXT NOT NULL,            -- the forge's name of it
    received_at_ms INTEGER NOT NULL,
    verdict        TEXT NOT NULL,            -- accepted, ignored, refused
    sentence       TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX forge_deliveries_by_id ON forge_deliveries (project_id, delivery) WHERE verdict <> 'refused';
CREATE INDEX forge_deliveries_by_project ON forge_deliveries (project_id, seq);
CREATE INDEX forge_deliveries_by_age ON forge_deliveries (received_at_ms);

-- One change of a ref or a pull request; a delivery may hold many. It is worked off from here.
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

-- Branches and tags as they were last seen.
CREATE TABLE forge_refs (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,                -- refs/heads/..., refs/tags/...
    object     TEXT NOT NULL,                -- what it points to: a commit, or the object of a tag
    PRIMARY KEY (project_id, name)
) STRICT, WITHOUT ROWID;

-- Pull requests that are open, by the branch that they come from.
CREATE TABLE forge_pulls (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    branch     TEXT NOT NULL,
    head       TEXT NOT NULL,
    url        TEXT NOT NULL,
    is_fork    INTEGER NOT NULL,
    PRIMARY KEY (project_id, number)
) STRICT, WITHOUT ROWID;

-- What a pipeline was made for, beside its revision.
ALTER TABLE pipelines ADD COLUMN pull TEXT;                                 -- JSON of the pull requests that jobs are told of
ALTER TABLE pipelines ADD COLUMN actor_avatar TEXT;
ALTER TABLE pipelines ADD COLUMN is_untrusted INTEGER NOT NULL DEFAULT 0;   -- of somebody else's fork: no secrets, only marked classes
ALTER TABLE resource_classes ADD COLUMN takes_untrusted INTEGER NOT NULL DEFAULT 0;
