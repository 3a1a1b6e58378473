-- Acts of people that change what is set up: who, when, from where, what, and how it was answered (NULL: the control
-- plane was stopped before it knew).
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
