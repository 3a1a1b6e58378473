-- Small outputs of tasks whose agent has finished: as files they would be one each.
CREATE TABLE small_outputs (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    step    INTEGER NOT NULL,               -- number of the record
    bytes   BLOB NOT NULL,
    PRIMARY KEY (task_id, step)
) STRICT, WITHOUT ROWID;

-- Every claim asks what its runner, and what its machine, holds: never by way of everything that runs.
CREATE INDEX tasks_by_runner ON tasks (runner_name) WHERE stopped_at_ms IS NULL AND runner_name IS NOT NULL;
CREATE INDEX tasks_by_machine ON tasks (machine_id) WHERE stopped_at_ms IS NULL AND machine_id IS NOT NULL;
