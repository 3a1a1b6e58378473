-- Tokens of organisations: projects that are connected to this forge at this address, and have none of their own, go by them.
CREATE TABLE forge_tokens (
    organisation_id TEXT PRIMARY KEY REFERENCES organisations (id) ON DELETE CASCADE,
    forge           TEXT NOT NULL,
    api_url         TEXT NOT NULL,           -- the token is shown there only
    username        TEXT NOT NULL,           -- the name that goes with it where git asks for one
    is_for_jobs     INTEGER NOT NULL,        -- jobs get it for checkout, but for those of forks
    sealed          BLOB NOT NULL,
    updated_at_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Projects whose forge is told how it goes: by a token of their own, by one of their organisation, or by an App.
DROP VIEW forge_told;
CREATE VIEW forge_told AS SELECT c.project_id FROM forge_connections c WHERE c.api_url IS NOT NULL AND (
    EXISTS (SELECT 1 FROM forge_secrets s WHERE s.project_id = c.project_id AND s.name = 'token')
    OR EXISTS (SELECT 1 FROM projects p JOIN forge_tokens t ON t.organisation_id = p.organisation_id
        WHERE p.id = c.project_id AND t.forge = c.forge AND t.api_url = c.api_url)
    OR c.forge = 'github' AND (
        EXISTS (SELECT 1 FROM forge_apps a WHERE a.project_id = c.project_id)
        OR EXISTS (SELECT 1 FROM projects p JOIN forge_apps a ON a.organisation_id = p.organisation_id WHERE p.id = c.project_id)
    )
);
