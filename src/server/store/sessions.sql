-- Logins of the web page. Of a cookie only the SHA-256 of its secret is stored; it ends with its personal token.
CREATE TABLE web_sessions (
    hash          BLOB PRIMARY KEY,
    token_id      TEXT NOT NULL REFERENCES personal_tokens (id) ON DELETE CASCADE,
    created_at_ms INTEGER NOT NULL,
    used_at_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX web_sessions_by_token ON web_sessions (token_id);
